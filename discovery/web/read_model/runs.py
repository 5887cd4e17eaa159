"""Overview: runs through the chain with what each found, and the key numbers of the whole library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pyarrow.compute as pc

from discovery.types import DatasetVersion, DuplicateReport, Manifest, NoveltyReport, QualityReport, StratumRecall
from discovery.web.read_model.library import Chain, Library, file_name, finite, rows_where

State = Literal["ingested", "quality_failed", "checked", "embedded", "deduplicated", "scored", "indexed"]


@dataclass(frozen=True, slots=True)
class Run:
    """One manifest and what was made of it; None for what the chain has not reached. `reference_id` is empty on a first run."""

    manifest_id: str
    created_at: str
    sources: tuple[str, ...]
    state: State
    listed: int
    assets: int
    new_assets: int
    unchanged: int
    removed: int
    moved: int
    rejected: int
    rejections: dict[str, int]
    quality_id: str | None
    quality_passed: bool | None
    failed_expectations: tuple[str, ...]
    quarantined: int | None
    duplicates_id: str | None
    exact_groups: int | None
    near_groups: int | None
    novelty_id: str | None
    reference_id: str | None
    candidates: int | None
    novel: int | None
    fdr: float | None
    shifted: bool | None
    note: str
    index_id: str | None
    elements: int | None
    recall_at_10: float | None
    recall_lower_bound: float | None
    is_certified: bool | None


@dataclass(frozen=True, slots=True)
class Totals:
    """Key numbers; None while there is nothing to count."""

    assets: int | None
    groups: int | None
    exact_groups: int | None
    near_groups: int | None
    novel: int | None
    candidates: int | None
    fdr: float | None
    novelty_at: str
    elements: int | None
    segments: int | None
    recall_at_10: float | None
    recall_lower_bound: float | None
    recall_target: float | None
    strata: tuple[StratumRecall, ...]
    is_certified: bool | None
    encoder_id: str
    versions: int
    newest_version: str
    newest_version_assets: int | None


@dataclass(frozen=True, slots=True)
class Overview:
    """A page of runs, newest first; `has_more` says whether older ones follow."""

    root: str
    totals: Totals
    runs: tuple[Run, ...]
    offset: int
    has_more: bool


@dataclass(frozen=True, slots=True)
class Rejection:
    """A listed row that could not become an asset."""

    source_uri: str
    name: str
    reason: str
    detail: str
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An asset that missed an expectation and took no further part."""

    asset_id: str
    source_uri: str
    name: str
    failed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rejections:
    """What a run set aside, and why."""

    manifest_id: str
    created_at: str
    total: int
    by_reason: dict[str, int]
    rejections: tuple[Rejection, ...]
    quarantined_total: int
    quarantined: tuple[Quarantined, ...]
    offset: int
    has_more: bool


def overview(library: Library, offset: int, limit: int) -> Overview:
    """Runs `offset` to `offset + limit`, newest first, and the totals."""
    manifests = library.records(Manifest, offset + limit + 1)[offset:]
    runs = tuple(_run(library.chain(manifest)) for manifest in manifests[:limit])
    return Overview(library.config.root, totals(library), runs, offset, len(manifests) > limit)


def run(library: Library, manifest_id: str) -> Run:
    """One run. Raises UnknownRecord."""
    return _run(library.chain(library.get(Manifest, manifest_id)))


def totals(library: Library) -> Totals:
    """Assets and groups of the newest duplicate report, which covers all that is known; novelty of the newest scored batch."""
    duplicates = next(iter(library.records(DuplicateReport, 1)), None)
    novelty = newest_scored(library)
    head = library.head()
    versions = library.versions()
    newest = library.get(DatasetVersion, versions[0].version_id) if versions else None
    return Totals(
        assets=duplicates.assets if duplicates else None,
        groups=duplicates.groups if duplicates else None,
        exact_groups=duplicates.exact_groups if duplicates else None,
        near_groups=duplicates.near_groups if duplicates else None,
        novel=novelty.novel if novelty else None,
        candidates=novelty.candidates if novelty else None,
        fdr=novelty.fdr if novelty else None,
        novelty_at=novelty.created_at if novelty else "",
        elements=head.elements if head else None,
        segments=len(head.segments) if head else None,
        recall_at_10=finite(head.recall_at_10) if head else None,
        recall_lower_bound=finite(head.recall_lower_bound) if head else None,
        recall_target=head.recall_target if head else None,
        strata=head.strata if head else (),
        is_certified=head.is_certified if head else None,
        encoder_id=head.encoder_id if head else "",
        versions=len(versions),
        newest_version=f"{versions[0].name}@{versions[0].number}" if versions else "",
        newest_version_assets=newest.assets if newest else None,
    )


def newest_scored(library: Library) -> NoveltyReport | None:
    """The newest novelty report that had something to score, else the newest."""
    reports = library.records(NoveltyReport, 50)
    return next((report for report in reports if report.candidates), reports[0] if reports else None)


def rejections(library: Library, manifest_id: str, offset: int, limit: int) -> Rejections:
    """Rows `offset` to `offset + limit` of what one run set aside. Raises UnknownRecord."""
    manifest = library.get(Manifest, manifest_id)
    table = library.table(manifest, ("source_uri", "asset_id", "reason", "detail", "size_bytes"))
    rejected = table.filter(pc.is_valid(table["reason"]))
    rows: list[dict[str, Any]] = rejected.slice(offset, limit).to_pylist()
    quality = library.chain(manifest).quality
    quarantined, total = _quarantined(library, manifest, quality, offset, limit)
    return Rejections(
        manifest_id=manifest.id, created_at=manifest.created_at, total=len(rejected), by_reason=dict(manifest.rejections),
        rejections=tuple(
            Rejection(row["source_uri"], file_name(row["source_uri"]), row["reason"], row["detail"] or "", row["size_bytes"])
            for row in rows
        ),
        quarantined_total=total, quarantined=quarantined, offset=offset,
        has_more=offset + limit < max(len(rejected), total),
    )  # fmt: skip


def _quarantined(
    library: Library, manifest: Manifest, quality: QualityReport | None, offset: int, limit: int
) -> tuple[tuple[Quarantined, ...], int]:
    if quality is None:
        return (), 0
    table = library.table(quality)
    failed = table.filter(table["is_quarantined"])
    rows: list[dict[str, Any]] = failed.slice(offset, limit).to_pylist()
    listed = library.table(manifest, ("asset_id", "source_uri"))
    uris = {row["asset_id"]: row["source_uri"] for row in rows_where(listed, "asset_id", [row["asset_id"] for row in rows])}
    found = tuple(
        Quarantined(row["asset_id"], uris.get(row["asset_id"], ""), file_name(uris.get(row["asset_id"], "")), tuple(row["failed"]))
        for row in rows
    )
    return found, len(failed)


def _run(chain: Chain) -> Run:
    manifest, quality, duplicates, novelty, index = chain.manifest, chain.quality, chain.duplicates, chain.novelty, chain.index
    return Run(
        manifest_id=manifest.id,
        created_at=manifest.created_at,
        sources=manifest.sources,
        state=_state(chain),
        listed=manifest.rows,
        assets=manifest.assets,
        new_assets=manifest.new_assets,
        unchanged=manifest.unchanged,
        removed=manifest.removed,
        moved=manifest.moved,
        rejected=manifest.rejected,
        rejections=dict(manifest.rejections),
        quality_id=quality.id if quality else None,
        quality_passed=quality.passed if quality else None,
        failed_expectations=quality.failed_expectations if quality else (),
        quarantined=quality.quarantined if quality else None,
        duplicates_id=duplicates.id if duplicates else None,
        exact_groups=duplicates.exact_groups if duplicates else None,
        near_groups=duplicates.near_groups if duplicates else None,
        novelty_id=novelty.id if novelty else None,
        reference_id=novelty.reference_id if novelty else None,
        candidates=novelty.candidates if novelty else None,
        novel=novelty.novel if novelty else None,
        fdr=novelty.fdr if novelty else None,
        shifted=novelty.shifted if novelty else None,
        note=novelty.note if novelty else "",
        index_id=index.id if index else None,
        elements=index.elements if index else None,
        recall_at_10=finite(index.recall_at_10) if index else None,
        recall_lower_bound=finite(index.recall_lower_bound) if index else None,
        is_certified=index.is_certified if index else None,
    )


def _state(chain: Chain) -> State:
    """How far the chain has come."""
    if chain.index:
        return "indexed"
    if chain.novelty:
        return "scored"
    if chain.duplicates:
        return "deduplicated"
    if chain.embedded:
        return "embedded"
    if chain.quality:
        return "checked" if chain.quality.passed else "quality_failed"
    return "ingested"
