"""Novel assets of one report, most novel first, each with its nearest known neighbour."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from discovery.types import DatasetVersion, Manifest, NoveltyReport
from discovery.web.read_model.library import Library, Listing, finite
from discovery.web.read_model.runs import newest_scored

REPORTS_OFFERED = 30  # newest reports one can choose from


@dataclass(frozen=True, slots=True)
class ReportSummary:
    """One novelty report, to choose from."""

    id: str
    created_at: str
    manifest_id: str
    candidates: int
    novel: int
    shifted: bool


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A known asset near a candidate; cosine distance in [0, 2], smaller is nearer."""

    asset_id: str
    distance: float | None
    source_uri: str
    name: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A new asset; higher novelty is more novel, None without a reference."""

    rank: int
    asset_id: str
    source_uri: str
    name: str
    folder: str
    novelty: float | None
    p_value: float | None
    q_value: float | None
    is_novel: bool
    nearest: Neighbour | None


@dataclass(frozen=True, slots=True)
class NoveltyView:
    """A page of one report; `report` is None while nothing was scored."""

    report: ReportSummary | None
    reports: tuple[ReportSummary, ...]
    fdr: float | None
    note: str
    reference: str
    references: int
    calibration_rows: int
    sources: tuple[str, ...]
    highest: float | None
    candidates: tuple[Candidate, ...]
    total: int
    offset: int
    has_more: bool


def novel_view(library: Library, report_id: str | None, only_novel: bool, offset: int, limit: int) -> NoveltyView:
    """Candidates `offset` to `offset + limit` of a report; None takes the newest that had candidates. Raises UnknownRecord."""
    reports = library.records(NoveltyReport, REPORTS_OFFERED)
    report = library.get(NoveltyReport, report_id) if report_id else newest_scored(library)
    offered = tuple(_summary(item) for item in reports)
    if report is None:
        return NoveltyView(None, offered, None, "", "", 0, 0, (), None, (), 0, offset, False)
    ranked = library.derive(report, "ranked", lambda: _ranked(library.table(report)))
    chosen = ranked.filter(ranked["is_novel"]) if only_novel else ranked
    rows = chosen.slice(offset, limit).to_pylist()
    nearest_ids = [row["nearest"][0] for row in rows if row["nearest"]]
    located = library.locate([*(row["asset_id"] for row in rows), *nearest_ids], [report.manifest_id])
    candidates = []
    for position, row in enumerate(rows):
        listing = located.get(row["asset_id"])
        neighbours = neighbours_of(row["nearest"][:1], row["nearest_distance"][:1], located)
        candidates.append(
            Candidate(
                offset + position + 1, row["asset_id"], listing.source_uri if listing else "", listing.name if listing else "",
                listing.folder if listing else "", finite(row["novelty"]), finite(row["p_value"]), finite(row["q_value"]),
                bool(row["is_novel"]), neighbours[0] if neighbours else None,
            )
        )  # fmt: skip
    return NoveltyView(
        report=_summary(report), reports=offered, fdr=report.fdr, note=report.note, reference=_reference(library, report),
        references=report.references, calibration_rows=report.calibration_rows, sources=_sources(library, report),
        highest=finite(pc.max(ranked["novelty"]).as_py()), candidates=tuple(candidates), total=len(chosen), offset=offset,
        has_more=offset + limit < len(chosen),
    )  # fmt: skip


def neighbours_of(ids: list[str], distances: list[float], located: dict[str, Listing]) -> list[Neighbour]:
    """Neighbours with where they were listed, nearest first."""
    return [
        Neighbour(i, finite(d), located[i].source_uri if i in located else "", located[i].name if i in located else "")
        for i, d in zip(ids, distances, strict=True)
    ]


def _ranked(table: pa.Table) -> pa.Table:
    """Most novel first, ties by id, as `discovery score` ranks them."""
    order = pc.sort_indices(table, sort_keys=[("novelty", "descending"), ("asset_id", "ascending")])
    return table.take(order)


def _summary(report: NoveltyReport) -> ReportSummary:
    return ReportSummary(report.id, report.created_at, report.manifest_id, report.candidates, report.novel, report.shifted)


def _reference(library: Library, report: NoveltyReport) -> str:
    """What the candidates were compared with, in words."""
    if not report.reference_id:
        return ""
    record = library.record(report.reference_id)
    if isinstance(record, DatasetVersion):
        row = next((row for row in library.versions() if row.version_id == record.id), None)
        return f"{row.name}@{row.number}" if row else record.name
    return "everything known before this run"


def _sources(library: Library, report: NoveltyReport) -> tuple[str, ...]:
    return library.get(Manifest, report.manifest_id).sources
