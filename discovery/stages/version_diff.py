"""The difference of two versions: members added, removed and moved, each with the reason, and what changed in spec, inputs and numbers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from discovery.stages.decisions import sentence
from discovery.types import CollectionReport, DatasetVersion
from discovery.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Change:
    """One member that differs. was, now: its split in the first and in the second version; empty where it is in no split."""

    asset_id: str
    source_uri: str
    was: str
    now: str
    reason: str


@dataclass(frozen=True, slots=True)
class VersionDiff:
    """What the second version has other than the first. spec, inputs, metrics: (name, of the first, of the second), of those that differ."""

    added: tuple[Change, ...]
    removed: tuple[Change, ...]
    moved: tuple[Change, ...]
    kept: int
    spec: tuple[tuple[str, Any, Any], ...]
    inputs: tuple[tuple[str, Any, Any], ...]
    metrics: tuple[tuple[str, Any, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for --json."""
        changes = {name: [asdict(change) for change in getattr(self, name)] for name in ("added", "removed", "moved")}
        tables = {
            name: [{"name": key, "a": one, "b": other} for key, one, other in getattr(self, name)] for name in ("spec", "inputs", "metrics")
        }
        return {**changes, "kept": self.kept, **tables}


def diff_versions(a: DatasetVersion, b: DatasetVersion, ws: Workspace) -> VersionDiff:
    """What b has other than a. The reason of a removed member is the decision on it in b; "not among the assets of b" where there is none."""
    one, other = (_members(version, ws) for version in (a, b))
    decisions: dict[str, str] = {}
    if gone := set(one) - set(other):
        decisions = _decisions(b, gone, ws)
    added = [Change(i, other[i]["source_uri"], "", other[i]["split"], other[i]["reason"]) for i in sorted(set(other) - set(one))]
    removed = [
        Change(i, one[i]["source_uri"], one[i]["split"], "", decisions.get(i, "it is not among the assets of the other version's index")) for i in sorted(gone)
    ]
    both = sorted(set(one) & set(other))
    moved = [Change(i, other[i]["source_uri"], one[i]["split"], other[i]["split"], other[i]["reason"]) for i in both if one[i]["split"] != other[i]["split"]]
    return VersionDiff(
        tuple(added), tuple(removed), tuple(moved), len(both) - len(moved),
        _changed(json.loads(a.spec), json.loads(b.spec)), _changed(_inputs(a), _inputs(b)), _changed(_metrics(a, ws), _metrics(b, ws)),
    )  # fmt: skip


def _members(version: DatasetVersion, ws: Workspace) -> dict[str, dict[str, Any]]:
    table = ws.store.read_table(version, columns=["asset_id", "split", "reason", "source_uri"])
    return {row["asset_id"]: row for row in table.to_pylist()}


def _decisions(version: DatasetVersion, wanted: set[str], ws: Workspace) -> dict[str, str]:
    if not any(ref.role == "decisions" for ref in version.files):
        return {}
    return {row["asset_id"]: sentence(row) for row in ws.store.read_table(version, "decisions").to_pylist() if row["asset_id"] in wanted}


def _inputs(version: DatasetVersion) -> dict[str, Any]:
    return {"index": version.snapshot_id, "encoder": version.encoder_id, "digest": version.digest}


def _metrics(version: DatasetVersion, ws: Workspace) -> dict[str, Any]:
    names = (
        "assets", "candidates", "size_bytes", "optimality_bound", "leaked", "removed_for_leakage", "coverage_radius", "coverage_beyond",
        "split_similarity",
    )  # fmt: skip
    found = {name: getattr(version, name) for name in names} | {f"split_{name}": size for name, size in version.splits.items()}
    report = next(
        (one for one in ws.catalog.records(CollectionReport.stage) if isinstance(one, CollectionReport) and one.version_id == version.id), None
    )
    if report is None:
        return found
    numbers = json.loads(ws.store.read_file(report, "expectations"))["numbers"]
    return {**found, "check": "passed" if report.passed else "failed", **{f"check.{name}": value for name, value in numbers.items()}}


def _changed(a: dict[str, Any], b: dict[str, Any]) -> tuple[tuple[str, Any, Any], ...]:
    names = list(dict.fromkeys([*a, *b]))
    return tuple((name, a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name))
