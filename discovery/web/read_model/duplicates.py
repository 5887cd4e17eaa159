"""Duplicate groups of one report, largest first, keeper first in each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from discovery.types import DuplicateReport
from discovery.web.read_model.library import Library, finite, rows_where

Kind = Literal["all", "near", "exact"]
MEMBERS_SHOWN = 24  # of one group
REPORTS_OFFERED = 30
NOT_NEAR = ("single", "keeper", "same_pixels")  # relations of rows that are no near copies


@dataclass(frozen=True, slots=True)
class DuplicateSummary:
    """One duplicate report, to choose from."""

    id: str
    created_at: str
    manifest_id: str
    assets: int
    groups: int


@dataclass(frozen=True, slots=True)
class Member:
    """One asset of a group, with how near it is to the keeper and how that became this one. `source_rows` listed rows hold its bytes."""

    asset_id: str
    relation: str
    transformation: str
    kept_because: str
    source_rows: int
    sources: tuple[str, ...]
    name: str
    width_px: int | None
    height_px: int | None
    size_bytes: int | None
    pdq_distance: int | None
    cosine: float | None
    luma_correlation: float | None
    difference: float | None


@dataclass(frozen=True, slots=True)
class Group:
    """One picture, however often it was listed; `pictures` distinct files by content, `rows` listed rows."""

    group_id: str
    keeper_id: str
    kind: Literal["near", "exact"]
    pictures: int
    rows: int
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class DuplicatesView:
    """A page of one report; `report` is None while nothing was compared."""

    report: DuplicateSummary | None
    reports: tuple[DuplicateSummary, ...]
    exact_groups: int
    near_groups: int
    spare_rows: int
    kind: Kind
    groups: tuple[Group, ...]
    total: int
    offset: int
    has_more: bool


def duplicates_view(library: Library, report_id: str | None, kind: Kind, offset: int, limit: int) -> DuplicatesView:
    """Groups `offset` to `offset + limit` of a report; None takes the newest. Raises UnknownRecord.

    A group is of kind exact when all its files show the same pixels, else near.
    """
    reports = library.records(DuplicateReport, REPORTS_OFFERED)
    report = library.get(DuplicateReport, report_id) if report_id else next(iter(reports), None)
    offered = tuple(_summary(item) for item in reports)
    if report is None:
        return DuplicatesView(None, offered, 0, 0, 0, kind, (), 0, offset, False)
    groups = library.derive(report, "groups", lambda: _groups(library.table(report)))
    spare = (pc.sum(groups["rows"]).as_py() or 0) - len(groups)
    chosen = groups if kind == "all" else groups.filter(pc.equal(groups["near"], 1 if kind == "near" else 0))
    shown: list[dict[str, Any]] = chosen.slice(offset, limit).to_pylist()
    return DuplicatesView(
        report=_summary(report), reports=offered, exact_groups=report.exact_groups, near_groups=report.near_groups,
        spare_rows=spare, kind=kind, groups=_with_members(library, report, shown), total=len(chosen), offset=offset,
        has_more=offset + limit < len(chosen),
    )  # fmt: skip


def group_members(library: Library, report: DuplicateReport, group_id: str) -> tuple[Member, ...]:
    """Members of one group, keeper first, then by similarity."""
    return _with_members(library, report, [{"group_id": group_id, "near": 0, "pictures": 0, "rows": 0}])[0].members


def _groups(table: pa.Table) -> pa.Table:
    """One row a group that holds more than one listed row: group_id, pictures, rows, near (0 or 1); most rows first, ties by id."""
    near = pc.cast(pc.invert(pc.is_in(table["relation"], pa.array(NOT_NEAR))), pa.int8())
    narrow = table.select(["group_id", "source_rows"]).append_column("near", near)
    grouped = narrow.group_by("group_id", use_threads=False).aggregate(
        [("source_rows", "sum"), ("group_id", "count"), ("near", "max")]
    )
    grouped = pa.table(
        {
            "group_id": grouped["group_id"],
            "pictures": grouped["group_id_count"],
            "rows": grouped["source_rows_sum"],
            "near": grouped["near_max"],
        }
    )
    several = grouped.filter(pc.greater(grouped["rows"], 1))
    keys = [("pictures", "descending"), ("rows", "descending"), ("group_id", "ascending")]
    return several.take(pc.sort_indices(several, sort_keys=keys))


def _with_members(library: Library, report: DuplicateReport, groups: list[dict[str, Any]]) -> tuple[Group, ...]:
    rows = rows_where(library.table(report), "group_id", [group["group_id"] for group in groups])
    by_group: dict[str, list[dict[str, Any]]] = {group["group_id"]: [] for group in groups}
    for row in rows:
        by_group[row["group_id"]].append(row)
    for members in by_group.values():
        members.sort(
            key=lambda row: (row["asset_id"] != row["keeper_id"], row["relation"] not in NOT_NEAR, row["difference"] or 0.0, row["asset_id"])
        )
        del members[MEMBERS_SHOWN:]
    ids = {row["asset_id"] for members in by_group.values() for row in members}
    located = library.locate(ids, [report.manifest_id])
    sources = library.sources(ids)

    def member(row: dict[str, Any]) -> Member:
        listing = located.get(row["asset_id"])
        uris = tuple(sources.get(row["asset_id"], ()))
        return Member(
            row["asset_id"], row["relation"], row["transformation"], row["kept_because"], row["source_rows"], uris, listing.name if listing else "",
            listing.width_px if listing else None, listing.height_px if listing else None,
            listing.size_bytes if listing else None, row["pdq_distance"], finite(row["cosine"]), finite(row["luma_correlation"]),
            finite(row["difference"]),
        )  # fmt: skip

    return tuple(
        Group(
            group["group_id"], _keeper(by_group[group["group_id"]]), "near" if group["near"] else "exact", group["pictures"], group["rows"],
            tuple(member(row) for row in by_group[group["group_id"]]),
        )
        for group in groups
    )  # fmt: skip


def _keeper(members: list[dict[str, Any]]) -> str:
    """The keeper of a group; empty for a group of no members."""
    return str(members[0]["keeper_id"]) if members else ""


def _summary(report: DuplicateReport) -> DuplicateSummary:
    return DuplicateSummary(report.id, report.created_at, report.manifest_id, report.assets, report.groups)
