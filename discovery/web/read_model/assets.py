"""Everything that is known about one asset, on one page."""

from __future__ import annotations

from dataclasses import dataclass

from discovery.errors import UnknownRecord
from discovery.schemas import MEASURES_COMMON
from discovery.types import DatasetVersion, DuplicateReport, Manifest, NoveltyReport, QualityReport
from discovery.web.read_model.duplicates import Member, group_members
from discovery.web.read_model.library import MANIFESTS_SCANNED, Chain, Library, Listing, finite, rows_where
from discovery.web.read_model.novelty import Neighbour, neighbours_of

VERSIONS_SCANNED = 100  # newest versions looked through for the asset
HASHES = frozenset(field.name for field in MEASURES_COMMON)


@dataclass(frozen=True, slots=True)
class AssetQuality:
    """What the quality report of the asset's manifest says of it."""

    report_id: str
    is_quarantined: bool
    failed: tuple[str, ...]
    measures: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class AssetNovelty:
    """How novel it was when it came."""

    report_id: str
    created_at: str
    novelty: float | None
    p_value: float | None
    q_value: float | None
    is_novel: bool
    fdr: float
    is_rare: bool
    nearest: tuple[Neighbour, ...]


@dataclass(frozen=True, slots=True)
class Said:
    """What a person said of it: a mark, who and when."""

    mark: str
    by: str
    at: str
    comment: str


@dataclass(frozen=True, slots=True)
class AssetGroup:
    """Its duplicate group in the newest report that knows it."""

    report_id: str
    group_id: str
    relation: str
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Membership:
    """A version it is in, and why."""

    version_id: str
    name: str
    number: int
    split: str
    reason: str


@dataclass(frozen=True, slots=True)
class AssetView:
    """One asset; None for what no stage has said yet."""

    asset_id: str
    name: str
    sources: tuple[str, ...]
    folder: str
    format: str
    width_px: int | None
    height_px: int | None
    size_bytes: int | None
    modified_at: str
    manifest_id: str
    first_seen: str
    quality: AssetQuality | None
    novelty: AssetNovelty | None
    group: AssetGroup | None
    versions: tuple[Membership, ...]
    marks: tuple[Said, ...]


def asset_view(library: Library, asset_id: str) -> AssetView:
    """One asset. Raises UnknownRecord when no manifest lists it."""
    found = [
        (manifest, listing)
        for manifest in library.records(Manifest, MANIFESTS_SCANNED)
        for listing in library.listings(manifest, [asset_id])[:1]
    ]
    if not found:
        raise UnknownRecord(f"No asset {asset_id[:16]}… in the newest {MANIFESTS_SCANNED} manifests.")
    first, listing = found[-1]  # the oldest manifest that lists it: there it was new
    chain = library.chain(first)
    return AssetView(
        asset_id=asset_id, name=listing.name, sources=tuple(library.sources([asset_id])[asset_id]), folder=listing.folder,
        format=listing.format, width_px=listing.width_px, height_px=listing.height_px, size_bytes=listing.size_bytes,
        modified_at=listing.modified_at, manifest_id=first.id, first_seen=first.created_at,
        quality=_quality(library, asset_id, chain.quality), novelty=_novelty(library, asset_id, chain, listing),
        group=_group(library, asset_id), versions=_memberships(library, asset_id),
        marks=tuple(Said(one.mark, one.by, one.created_at, one.comment) for one in library.said_of(asset_id)),
    )  # fmt: skip


def _quality(library: Library, asset_id: str, report: QualityReport | None) -> AssetQuality | None:
    if report is None:
        return None
    verdict = next(iter(rows_where(library.table(report), "asset_id", [asset_id])), None)
    if verdict is None:
        return None
    measured = next(iter(rows_where(library.table(report, role="measures"), "asset_id", [asset_id])), {})
    measures = {name: finite(value) for name, value in sorted(measured.items()) if name not in HASHES}
    return AssetQuality(report.id, bool(verdict["is_quarantined"]), tuple(verdict["failed"]), measures)


def _novelty(library: Library, asset_id: str, chain: Chain, listing: Listing) -> AssetNovelty | None:
    report: NoveltyReport | None = chain.novelty
    row = next(iter(rows_where(library.table(report), "asset_id", [asset_id])), None) if report else None
    if report is None or row is None:
        return None
    located = library.locate(row["nearest"], [listing.manifest_id])
    return AssetNovelty(
        report.id, report.created_at, finite(row["novelty"]), finite(row["p_value"]), finite(row["q_value"]),
        bool(row["is_novel"]), report.fdr, bool(row.get("is_rare")), tuple(neighbours_of(row["nearest"], row["nearest_distance"], located)),
    )  # fmt: skip


def _group(library: Library, asset_id: str) -> AssetGroup | None:
    for report in library.records(DuplicateReport, 5):
        row = next(iter(rows_where(library.table(report), "asset_id", [asset_id])), None)
        if row is not None:
            return AssetGroup(report.id, row["group_id"], row["relation"], group_members(library, report, row["group_id"]))
    return None


def _memberships(library: Library, asset_id: str) -> tuple[Membership, ...]:
    found = []
    for row in library.versions()[:VERSIONS_SCANNED]:
        members = library.table(library.get(DatasetVersion, row.version_id), ("asset_id", "split", "reason"))
        for member in rows_where(members, "asset_id", [asset_id]):
            found.append(Membership(row.version_id, row.name, row.number, member["split"], member["reason"]))
    return tuple(found)
