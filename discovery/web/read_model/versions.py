"""Dataset versions, newest first, and the members of one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from discovery.adapters.catalog import VersionRow
from discovery.stages.decisions import RULES
from discovery.stages.why import Why, why
from discovery.types import CollectionReport, DatasetVersion
from discovery.web.read_model.library import Library, file_name, finite

REPORTS_SCANNED = 1000  # newest checks in which that of a version is looked for
MEMBER_COLUMNS = ("asset_id", "split", "source_uri", "novelty", "reason", "pick")


@dataclass(frozen=True, slots=True)
class Version:
    """One immutable version of a collection. `mlflow_url` is empty until it is published, or when it is no web address; `yanked` says why it should not be used."""

    version_id: str
    name: str
    number: int
    digest: str
    created_at: str
    assets: int
    candidates: int
    splits: dict[str, int]
    leaked: int
    removed_for_leakage: int
    optimality_bound: float | None
    mlflow_run_id: str
    mlflow_url: str
    aliases: tuple[str, ...]
    yanked: str


@dataclass(frozen=True, slots=True)
class VersionsView:
    """A page of versions."""

    versions: tuple[Version, ...]
    total: int
    offset: int
    has_more: bool


@dataclass(frozen=True, slots=True)
class VersionMember:
    """An asset of a version, and why it is in. `pick` counts from 0 in order of selection; -1 came from the parent."""

    asset_id: str
    split: str
    source_uri: str
    name: str
    novelty: float | None
    reason: str
    pick: int


@dataclass(frozen=True, slots=True)
class LeftOut:
    """How many assets a rule left out, and what it says."""

    rule: str
    says: str
    is_candidate: bool
    assets: int


@dataclass(frozen=True, slots=True)
class Checked:
    """The check of a version: whether it passed, and what it missed."""

    report_id: str
    passed: bool
    failed: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VersionView:
    """One version with a page of its members in the order of selection, the spec that it was made from, what was left out, and its facts:
    parts, quotas, coverage and certificate, as `discovery card` tells them; empty for versions from before they were kept."""

    version: Version
    spec: dict[str, Any]
    left_out: tuple[LeftOut, ...]
    facts: dict[str, Any]
    check: Checked | None
    members: tuple[VersionMember, ...]
    total: int
    offset: int
    has_more: bool


def versions_view(library: Library, offset: int, limit: int) -> VersionsView:
    """Versions `offset` to `offset + limit`, newest first."""
    rows = library.versions()
    shown = tuple(_version(library, row) for row in rows[offset : offset + limit])
    return VersionsView(shown, len(rows), offset, offset + limit < len(rows))


def version_view(library: Library, version_id: str, split: str | None, offset: int, limit: int) -> VersionView:
    """One version and members `offset` to `offset + limit` of one split, or of all. Raises UnknownRecord."""
    record = library.get(DatasetVersion, version_id)
    row = next((row for row in library.versions() if row.version_id == version_id), None)
    row = row or VersionRow(record.name, 0, record.id, record.digest, None, None, record.created_at)
    table = library.derive(record, "picked", lambda: _by_pick(library, record))
    chosen = table.filter(pc.equal(table["split"], split)) if split else table
    members = tuple(
        VersionMember(
            item["asset_id"], item["split"], item["source_uri"], file_name(item["source_uri"]), finite(item["novelty"]),
            item["reason"], item["pick"],
        )
        for item in chosen.slice(offset, limit).to_pylist()
    )  # fmt: skip
    spec: dict[str, Any] = json.loads(record.spec)
    facts = _facts(library, record)
    left_out = tuple(
        LeftOut(rule, RULES[rule].says, RULES[rule].is_candidate, assets)
        for name in ("removed", "not_picked")
        for rule, assets in facts.get(name, {}).items()
    )
    return VersionView(_version(library, row), spec, left_out, facts, _checked(library, record), members, len(chosen), offset, offset + limit < len(chosen))


def why_view(library: Library, version_id: str, asset: str) -> Why:
    """Why an asset, by id, its first digits or URI, is in a version or not. Raises UnknownRecord."""
    return why(library.get(DatasetVersion, version_id), asset, library.workspace)


def web_address(url: str | None) -> str:
    """The URL when a browser may open it, else nothing: a link must never be of another scheme.

    >>> web_address("javascript:alert(1)")
    ''
    """
    return url if url and url.startswith(("http://", "https://")) else ""


def _facts(library: Library, record: DatasetVersion) -> dict[str, Any]:
    if not any(ref.role == "facts" for ref in record.files):
        return {}
    facts: dict[str, Any] = json.loads(library.store.read_file(record, "facts"))
    return facts


def _checked(library: Library, record: DatasetVersion) -> Checked | None:
    for report in library.records(CollectionReport, REPORTS_SCANNED):
        if report.version_id == record.id:
            return Checked(report.id, report.passed, report.failed_expectations, report.warnings)
    return None


def _by_pick(library: Library, record: DatasetVersion) -> Any:
    table = library.table(record, MEMBER_COLUMNS)
    return table.take(pc.sort_indices(table, sort_keys=[("pick", "ascending"), ("asset_id", "ascending")]))


def _version(library: Library, row: VersionRow) -> Version:
    record = library.get(DatasetVersion, row.version_id)
    standing = library.standing(row.name)
    yank = standing.yanked.get(row.number)
    return Version(
        version_id=row.version_id, name=row.name, number=row.number, digest=row.digest, created_at=row.created_at,
        assets=record.assets, candidates=record.candidates, splits=dict(record.splits), leaked=record.leaked,
        removed_for_leakage=record.removed_for_leakage,
        optimality_bound=finite(record.optimality_bound), mlflow_run_id=row.mlflow_run_id or "",
        mlflow_url=web_address(row.mlflow_url), aliases=standing.of(row.number), yanked=f"{yank.reason} ({yank.by}, {yank.at})" if yank else "",
    )  # fmt: skip
