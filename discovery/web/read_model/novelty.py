"""Candidates of one novelty report: all ranked, the novel by theme, the rare; each with its nearest known neighbours and its mark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from discovery import schemas
from discovery.types import DatasetVersion, Manifest, NoveltyReport
from discovery.web.read_model.library import Library, Listing, finite
from discovery.web.read_model.runs import newest_scored

REPORTS_OFFERED = 30  # newest reports one can choose from
THEMES_SHOWN = 60
Show = Literal["all", "novel", "rare"]


@dataclass(frozen=True, slots=True)
class ReportSummary:
    """One novelty report, to choose from."""

    id: str
    created_at: str
    manifest_id: str
    candidates: int
    novel: int
    rare: int
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
    """A new asset; higher novelty is more novel, None without a reference. percentile: of the known assets that are less novel, in [0, 100].

    density: how much lonelier than its neighbours are; 1 is typical. mark: what a person said of it, empty for nothing.
    """

    rank: int
    asset_id: str
    source_uri: str
    name: str
    folder: str
    novelty: float | None
    percentile: float | None
    p_value: float | None
    q_value: float | None
    is_novel: bool
    theme: int | None
    density: float | None
    rare_q_value: float | None
    is_rare: bool
    nearest: tuple[Neighbour, ...]
    mark: str


@dataclass(frozen=True, slots=True)
class Theme:
    """Novel assets that are alike: the one in the middle, how many, and words that they have more of than the batch, with how many have each."""

    number: int
    exemplar: str
    name: str
    assets: int
    words: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class FarOut:
    """A known asset that is as novel as few others, and may not belong into the reference."""

    asset_id: str
    name: str
    novelty: float
    mark: str


@dataclass(frozen=True, slots=True)
class NoveltyView:
    """A page of one report; `report` is None while nothing was scored. score: the view by which; guarantee: `batch` or `set`."""

    report: ReportSummary | None
    reports: tuple[ReportSummary, ...]
    fdr: float | None
    score: str
    guarantee: str
    note: str
    moved: tuple[str, ...]
    reference: str
    references: int
    calibration_rows: int
    sources: tuple[str, ...]
    highest: float | None
    themes: tuple[Theme, ...]
    far_out: tuple[FarOut, ...]
    candidates: tuple[Candidate, ...]
    total: int
    offset: int
    has_more: bool


def novel_view(library: Library, report_id: str | None, show: Show, theme: int | None, offset: int, limit: int) -> NoveltyView:
    """Candidates `offset` to `offset + limit` of a report; None takes the newest that had candidates. Raises UnknownRecord.

    show: all by novelty, the novel (of one theme, when it is given), or the rare by density.
    """
    reports = library.records(NoveltyReport, REPORTS_OFFERED)
    report = library.get(NoveltyReport, report_id) if report_id else newest_scored(library)
    offered = tuple(_summary(item) for item in reports)
    if report is None:
        return NoveltyView(None, offered, None, "", "", "", (), "", 0, 0, (), None, (), (), (), 0, offset, False)
    ranked = library.derive(report, "ranked", lambda: _ranked(library.table(report)))
    chosen = ranked
    if show == "novel":
        chosen = ranked.filter(ranked["is_novel"])
        chosen = chosen if theme is None else chosen.filter(pc.equal(chosen["theme"], theme))
    elif show == "rare":
        chosen = ranked.filter(ranked["is_rare"]).sort_by([("density", "descending"), ("asset_id", "ascending")])
    rows = chosen.slice(offset, limit).to_pylist()
    themes = library.table(report, role="themes").slice(0, THEMES_SHOWN).to_pylist() if _has(report, "themes") else []
    far_out = [row for row in library.table(report, role="calibration").to_pylist() if row["is_far_out"]] if _has(report, "calibration") and report.hidden else []
    shown = [*(row["asset_id"] for row in rows), *(i for row in rows for i in row["nearest"]), *(row["exemplar"] for row in themes), *(row["asset_id"] for row in far_out)]
    located = library.locate(shown, [report.manifest_id])
    marks = library.marks()

    def name(asset_id: str) -> str:
        return located[asset_id].name if asset_id in located else ""

    return NoveltyView(
        report=_summary(report), reports=offered, fdr=report.fdr, score=report.score, guarantee=report.guarantee, note=report.note, moved=report.moved,
        reference=_reference(library, report), references=report.references, calibration_rows=report.calibration_rows,
        sources=_sources(library, report), highest=finite(pc.max(ranked["novelty"]).as_py()),
        themes=tuple(
            Theme(row["theme"], row["exemplar"], name(row["exemplar"]), row["assets"], tuple(zip(row["words"], row["word_assets"], strict=True))) for row in themes
        ),
        far_out=tuple(FarOut(row["asset_id"], name(row["asset_id"]), row["novelty"], marks.get(row["asset_id"], "")) for row in far_out),
        candidates=tuple(_candidate(offset + position + 1, row, located, marks) for position, row in enumerate(rows)), total=len(chosen), offset=offset,
        has_more=offset + limit < len(chosen),
    )  # fmt: skip


def _candidate(rank: int, row: dict[str, Any], located: dict[str, Listing], marks: dict[str, str]) -> Candidate:
    listing = located.get(row["asset_id"])
    return Candidate(
        rank, row["asset_id"], listing.source_uri if listing else "", listing.name if listing else "", listing.folder if listing else "",
        finite(row["novelty"]), finite(row["percentile"]), finite(row["p_value"]), finite(row["q_value"]), bool(row["is_novel"]), row["theme"],
        finite(row["density"]), finite(row["rare_q_value"]), bool(row["is_rare"]),
        tuple(neighbours_of(row["nearest"], row["nearest_distance"], located)), marks.get(row["asset_id"], ""),
    )  # fmt: skip


def _has(report: NoveltyReport, role: str) -> bool:
    """Reports from before a file was written lack it."""
    return any(ref.role == role for ref in report.files)


def neighbours_of(ids: list[str], distances: list[float], located: dict[str, Listing]) -> list[Neighbour]:
    """Neighbours with where they were listed, nearest first."""
    return [
        Neighbour(i, finite(d), located[i].source_uri if i in located else "", located[i].name if i in located else "")
        for i, d in zip(ids, distances, strict=True)
    ]


def _ranked(table: pa.Table) -> pa.Table:
    """Most novel first, ties by id, as `discovery score` ranks them; columns that an older report lacks are empty."""
    for field in schemas.NOVELTY:
        if field.name not in table.column_names:
            empty = pa.nulls(len(table), field.type) if field.nullable else pa.array([False] * len(table), field.type)
            table = table.append_column(field, empty)
    order = pc.sort_indices(table, sort_keys=[("novelty", "descending"), ("asset_id", "ascending")])
    return table.take(order)


def _summary(report: NoveltyReport) -> ReportSummary:
    return ReportSummary(report.id, report.created_at, report.manifest_id, report.candidates, report.novel, report.rare, report.shifted)


def _reference(library: Library, report: NoveltyReport) -> str:
    """What the candidates were compared with, in words."""
    if report.reference:
        return report.reference
    if not report.reference_id:
        return ""
    record = library.record(report.reference_id)
    if isinstance(record, DatasetVersion):
        row = next((row for row in library.versions() if row.version_id == record.id), None)
        return f"{row.name}@{row.number}" if row else record.name
    return "everything known before this run"


def _sources(library: Library, report: NoveltyReport) -> tuple[str, ...]:
    return library.get(Manifest, report.manifest_id).sources
