"""Why an asset is in a version, or is not: the decision on it with its evidence, or where it was lost before there was one to take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from discovery.errors import UnknownRecord
from discovery.stages.decisions import RULES, sentence
from discovery.stages.history import embedding_sets, load_snapshot
from discovery.types import DatasetVersion, Manifest, QualityReport
from discovery.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Step:
    """What happened to an asset at one stage, and the record that says so; empty where there is none."""

    stage: str
    record_id: str
    what: str


@dataclass(frozen=True, slots=True)
class Why:
    """The answer for one asset; the last of its steps, in the order of the chain, decided.

    rule: one of stages.decisions.RULES, or `rejected`, `quarantined`, `later`. value, threshold, evidence: as in schemas.DECISIONS. split: empty when it is no member.
    """

    asset_id: str
    source_uri: str
    is_member: bool
    split: str
    rule: str
    sentence: str
    evidence: str
    evidence_uri: str
    value: float | None
    threshold: float | None
    stage: str
    record_id: str
    steps: tuple[Step, ...]


def why(version: DatasetVersion, asset: str, ws: Workspace) -> Why:
    """Why an asset is in the version or not.

    asset: an id, its first digits, or the URI that a source has it under. Also of what never came so far: rejected by ingest, held back by the
    quality check, or ingested after the version was made. Raises UnknownRecord when nothing is known of it.
    """
    if not any(ref.role == "decisions" for ref in version.files):
        raise UnknownRecord(f"Version {version.name} is from before decisions were kept. Curate its spec again; the new version has them.")
    snapshot = load_snapshot(version.snapshot_id, ws)
    manifests = [_manifest(key, ws) for key in snapshot.manifests]
    decisions = ws.store.read_table(version, "decisions")
    found, manifest = _in_decisions(asset, decisions, manifests, ws)
    if found is None:
        return _before(asset, version, snapshot.id, manifests, ws)
    asset_id = found["asset_id"]
    uri = manifest_uri(asset_id, manifest, ws) if manifest else ""
    steps = [Step("ingest", manifest.id, f"listed as {uri}")] if manifest else []
    report = next((one for one in embedding_sets(snapshot, ws) if manifest is not None and one.manifest_id == manifest.id), None)
    if report is not None:
        steps.append(Step("check", report.report_id, "passed the quality check"))
    rule = RULES[found["rule"]]
    record = found["record_id"] or (version.id if rule.stage == "curate" else "")
    words = sentence(found)
    split, member = "", ws.store.read_table(version)
    if found["is_member"]:
        row = member.filter(pc.equal(member["asset_id"], asset_id)).to_pylist()[0]
        split, words = row["split"], f"{words} ({row['reason']})"
    steps.append(Step(rule.stage, record, words))
    evidence = found["evidence"] or ""
    return Why(
        asset_id, uri, found["is_member"], split, found["rule"], words, evidence,
        _uri_of(evidence, manifests, ws), found["value"], found["threshold"], rule.stage, record, tuple(steps),
    )  # fmt: skip


def manifest_uri(asset_id: str, manifest: Manifest, ws: Workspace) -> str:
    """The first place that a manifest lists an asset at."""
    table = ws.store.read_table(manifest, columns=["asset_id", "source_uri"])
    rows = table.filter(pc.equal(table["asset_id"], asset_id))["source_uri"]
    return str(rows[0].as_py()) if len(rows) else ""


def _manifest(key: str, ws: Workspace) -> Manifest:
    found = ws.store.load_record(Manifest, key)
    if found is None:
        raise UnknownRecord(f"Manifest {key[:12]}… is gone. Run `discovery verify`.")
    return found


def _in_decisions(asset: str, decisions: pa.Table, manifests: list[Manifest], ws: Workspace) -> tuple[dict[str, Any] | None, Manifest | None]:
    """The decision on the asset that a text names, and the newest manifest that lists it."""
    hits = decisions.filter(pc.starts_with(decisions["asset_id"], asset)) if len(asset) >= 4 else decisions.slice(0, 0)
    if len(hits) > 1:
        raise UnknownRecord(f"{asset!r} is the start of {len(hits)} asset ids. Give more digits.")
    asset_id = hits["asset_id"][0].as_py() if len(hits) else None
    for manifest in reversed(manifests):
        table = ws.store.read_table(manifest, columns=["asset_id", "source_uri"])
        rows = table.filter(pc.equal(table["asset_id"], asset_id) if asset_id else pc.equal(table["source_uri"], asset))
        for one in rows["asset_id"].to_pylist():
            if one is not None:
                chosen = decisions.filter(pc.equal(decisions["asset_id"], one)).to_pylist()
                if chosen:
                    return chosen[0], manifest
    return (hits.to_pylist()[0], None) if len(hits) else (None, None)


def _uri_of(asset_id: str, manifests: list[Manifest], ws: Workspace) -> str:
    return next((uri for manifest in reversed(manifests) if (uri := manifest_uri(asset_id, manifest, ws))), "") if asset_id else ""


def _before(asset: str, version: DatasetVersion, snapshot_id: str, manifests: list[Manifest], ws: Workspace) -> Why:
    """Of an asset on which the version decided nothing: where it was lost."""
    known = {manifest.id for manifest in manifests}
    for manifest in ws.catalog.records(Manifest.stage):  # newest first
        assert isinstance(manifest, Manifest)
        table = ws.store.read_table(manifest, columns=["asset_id", "source_uri", "reason"])
        same = pc.equal(table["source_uri"], asset)
        if len(asset) >= 4:
            same = pc.or_(same, pc.fill_null(pc.starts_with(table["asset_id"], asset), False))
        for row in table.filter(same).to_pylist():
            if row["asset_id"] is None:
                words = f"ingest rejected it: {row['reason']}"
                return _lost(row, "rejected", [Step("ingest", manifest.id, words)])
            listed = Step("ingest", manifest.id, f"listed as {row['source_uri']}")
            if manifest.id not in known:
                words = "it was ingested after the index that the version was made from"
                return _lost(row, "later", [listed, Step("index", snapshot_id, words)])
            report, missed = _quarantined(row["asset_id"], manifest, ws)
            if report is not None:
                words = f"the quality check held it back: {missed}"
                return _lost(row, "quarantined", [listed, Step("check", report.id, words)])
    raise UnknownRecord(f"Nothing is known of {asset!r}: no manifest lists it, by id, first digits or URI. Ingest it first.")


def _lost(row: dict[str, Any], rule: str, steps: list[Step]) -> Why:
    """Of what was lost at the last of its steps."""
    last = steps[-1]
    return Why(row["asset_id"] or "", row["source_uri"], False, "", rule, last.what, "", "", None, None, last.stage, last.record_id, tuple(steps))


def _quarantined(asset_id: str, manifest: Manifest, ws: Workspace) -> tuple[QualityReport | None, str]:
    """The report that held an asset back, and the expectations it missed."""
    for report in ws.catalog.records(QualityReport.stage):
        assert isinstance(report, QualityReport)
        if report.manifest_id != manifest.id:
            continue
        table = ws.store.read_table(report)
        rows = table.filter(pc.equal(table["asset_id"], asset_id)).to_pylist()
        if rows and rows[0]["is_quarantined"]:
            return report, ", ".join(rows[0]["failed"])
    return None, ""

