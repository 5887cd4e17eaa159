"""The library that pages read: records and tables by id, kept in memory within a budget, since what a record names never changes."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import make_url

from discovery.adapters.catalog import Catalog, VersionRow
from discovery.adapters.storage import Store
from discovery.config import Config
from discovery.core.standing import Standing
from discovery.errors import UnknownRecord
from discovery.stages.marks import said_of, standing_marks
from discovery.stages.versions import standing_in
from discovery.types import DuplicateReport, EmbeddingSet, IndexSnapshot, Manifest, Mark, NoveltyReport, QualityReport, Record
from discovery.workspace import Workspace

RecordT = TypeVar("RecordT", bound=Record)

TABLE_BUDGET_BYTES = 256 * 2**20  # tables kept in memory; least recently used go first
RECORDS_KEPT = 4096  # about 1 kB each
MANIFESTS_SCANNED = 200  # newest manifests in which the source of an asset is looked for
SOURCES_SHOWN = 20  # source URIs of one asset; `source_rows` has the full count
LISTED = ("asset_id", "source_uri", "folder", "format", "width_px", "height_px", "size_bytes", "modified_at")


class ByteLru:
    """Values by key, least recently used dropped when their sizes exceed a budget. Safe for the threads of a server."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._values: OrderedDict[object, tuple[Any, int]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: object, make: Callable[[], Any], size: Callable[[Any], int]) -> Any:
        """The kept value, else what `make` returns; it runs outside the lock, so two threads may both make one."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key][0]
        value = make()
        taken = size(value)
        with self._lock:
            if key not in self._values and taken <= self.budget:
                self._values[key] = (value, taken)
                self._size += taken
            while self._size > self.budget:
                _, (_, dropped) = self._values.popitem(last=False)
                self._size -= dropped
        return value


@dataclass(frozen=True, slots=True)
class Listing:
    """One asset as a source lists it."""

    asset_id: str
    source_uri: str
    name: str
    folder: str
    format: str
    width_px: int | None
    height_px: int | None
    size_bytes: int | None
    modified_at: str
    manifest_id: str


@dataclass(frozen=True, slots=True)
class Chain:
    """What was made of one manifest so far; None where the chain has not come yet, or stopped."""

    manifest: Manifest
    quality: QualityReport | None = None
    embedded: EmbeddingSet | None = None
    duplicates: DuplicateReport | None = None
    novelty: NoveltyReport | None = None
    index: IndexSnapshot | None = None


class Library:
    """Reads one root and its catalog. A root or catalog that is not there yet is an empty library, and is not created."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._tables = ByteLru(TABLE_BUDGET_BYTES)
        self._derived = ByteLru(TABLE_BUDGET_BYTES // 4)
        self._records = ByteLru(RECORDS_KEPT)
        self._catalog: Catalog | None = None
        self._store: Store | None = None
        self._lock = threading.Lock()

    @property
    def catalog(self) -> Catalog | None:
        """The catalog, or None while there is none. Raises ConfigError, CatalogError."""
        with self._lock:
            if self._catalog is None and _database_exists(self.config.catalog_url):
                self._catalog = Catalog(self.config.catalog_url)
            return self._catalog

    @property
    def store(self) -> Store:
        """The store; opened on first use. Raises AccessDenied, StorageError."""
        with self._lock:
            if self._store is None:
                self._store = Store(self.config.root, self.config.s3)
            return self._store

    @property
    def workspace(self) -> Workspace:
        """For stages that only read. Raises UnknownRecord while there is no catalog."""
        catalog = self.catalog
        if catalog is None:
            raise UnknownRecord(f"Nothing was recorded under {self.config.root} yet.")
        return Workspace(self.config, self.store, catalog, map)

    # records

    def records(self, kind: type[RecordT], limit: int) -> list[RecordT]:
        """The newest records of a kind, newest first."""
        catalog = self.catalog
        found = catalog.records(kind.stage, limit) if catalog else []
        return [record for record in found if isinstance(record, kind)]

    def record(self, record_id: str) -> Record:
        """One record. Raises UnknownRecord."""
        catalog = self.catalog
        if catalog is None:
            raise UnknownRecord(f"No record {record_id[:16]}…: nothing was recorded under {self.config.root} yet.")
        found: Record = self._records.get(record_id, lambda: catalog.get_record(record_id), lambda _: 1)
        return found

    def get(self, kind: type[RecordT], record_id: str) -> RecordT:
        """One record of a kind. Raises UnknownRecord, also when the id is of another kind."""
        record = self.record(record_id)
        if not isinstance(record, kind):
            raise UnknownRecord(f"{record_id[:16]}… is a record of stage {record.stage}, not of {kind.stage}.")
        return record

    def versions(self) -> list[VersionRow]:
        """Every numbered version, newest first."""
        catalog = self.catalog
        return catalog.versions() if catalog else []

    def standing(self, name: str) -> Standing:
        """The aliases and yanks of a collection."""
        catalog = self.catalog
        return standing_in(name, catalog) if catalog else Standing()

    def marks(self) -> dict[str, str]:
        """asset_id to the mark that stands, of those that have one."""
        catalog = self.catalog
        return {asset_id: said.mark for asset_id, said in standing_marks(catalog).items()} if catalog else {}

    def said_of(self, asset_id: str) -> list[Mark]:
        """All that people said of an asset, newest first."""
        catalog = self.catalog
        return said_of(asset_id, catalog) if catalog else []

    def head(self) -> IndexSnapshot | None:
        """The current index snapshot; with several encoders, the one that was swapped in most recently."""
        catalog = self.catalog
        heads = [self.get(IndexSnapshot, head.snapshot_id) for head in catalog.heads()] if catalog else []
        return max(heads, key=lambda head: (head.created_at, head.id), default=None)

    def chain(self, manifest: Manifest) -> Chain:
        """What was made of a manifest: the newest of each kind, each made from the one before it."""
        first = self._children(manifest.id)
        embedded = _newest(EmbeddingSet, first)
        quality = self.get(QualityReport, embedded.report_id) if embedded else _newest(QualityReport, first)
        later = self._children(embedded.id) if embedded else []
        novelty = [record for record in later if isinstance(record, NoveltyReport) and record.manifest_id == manifest.id]
        indexes = [record for record in later if isinstance(record, IndexSnapshot) and record.manifests[-1:] == (manifest.id,)]
        return Chain(
            manifest, quality, embedded, _newest(DuplicateReport, later), _newest(NoveltyReport, novelty),
            min(indexes, key=lambda record: (record.created_at, record.id), default=None),
        )  # fmt: skip

    def _children(self, record_id: str) -> list[Record]:
        catalog = self.catalog
        return [self.record(child) for child in catalog.children(record_id)] if catalog else []

    # tables

    def table(self, record: Record, columns: Sequence[str] | None = None, role: str = "table") -> pa.Table:
        """A table of a record, kept. Raises CorruptArtifact."""
        key = (record.id, role, tuple(columns) if columns else None)
        return self._tables.get(key, lambda: self.store.read_table(record, role, columns), lambda table: int(table.nbytes))

    def derive(self, record: Record, name: str, make: Callable[[], pa.Table]) -> pa.Table:
        """A table computed from a record's own, kept under a name."""
        return self._derived.get((record.id, name), make, lambda table: int(table.nbytes))

    # assets

    def locate(self, asset_ids: Iterable[str], first: Sequence[str] = ()) -> dict[str, Listing]:
        """Where each of these assets was listed, once; looked for in the manifests `first`, then in the newest ones.

        An asset that is in none of them is left out.
        """
        wanted = set(asset_ids)
        found: dict[str, Listing] = {}
        for manifest in self._manifests(first):
            if not wanted:
                break
            for listing in self.listings(manifest, wanted):
                found.setdefault(listing.asset_id, listing)
            wanted -= set(found)
        return found

    def sources(self, asset_ids: Collection[str]) -> dict[str, list[str]]:
        """Source URIs of each asset over the newest manifests, sorted, at most SOURCES_SHOWN each."""
        uris: dict[str, set[str]] = {asset_id: set() for asset_id in asset_ids}
        for manifest in self._manifests(()):
            for listing in self.listings(manifest, uris):
                uris[listing.asset_id].add(listing.source_uri)
        return {asset_id: sorted(found)[:SOURCES_SHOWN] for asset_id, found in uris.items()}

    def listings(self, manifest: Manifest, asset_ids: Collection[str]) -> list[Listing]:
        """Rows of these assets in one manifest, by source URI."""
        if not asset_ids:
            return []
        rows = rows_where(self.table(manifest, LISTED), "asset_id", asset_ids)
        return [
            Listing(
                row["asset_id"], row["source_uri"], file_name(row["source_uri"]), row["folder"] or "", row["format"] or "",
                row["width_px"], row["height_px"], row["size_bytes"], row["modified_at"] or "", manifest.id,
            )
            for row in rows
        ]  # fmt: skip

    def _manifests(self, first: Sequence[str]) -> Iterable[Manifest]:
        seen = set()
        for manifest_id in first:
            if manifest_id not in seen:
                seen.add(manifest_id)
                yield self.get(Manifest, manifest_id)
        yield from (manifest for manifest in self.records(Manifest, MANIFESTS_SCANNED) if manifest.id not in seen)

    def thumbnail(self, asset_id: str) -> bytes | None:
        """WebP bytes, or None when there is none."""
        if self.catalog is None:
            return None
        try:
            return self.store.thumbnail(asset_id, self.config.ingest.thumbnail_px)
        except FileNotFoundError:
            return None


def rows_where(table: pa.Table, column: str, values: Collection[str]) -> list[dict[str, Any]]:
    """Rows of a table whose column is one of the values."""
    mask = pc.is_in(table[column], value_set=pa.array(list(values), pa.string()))
    rows: list[dict[str, Any]] = table.filter(mask).to_pylist()
    return rows


def file_name(uri: str) -> str:
    """Last part of a URI, for people.

    >>> file_name("s3://photos/animals/cat.jpg")
    'cat.jpg'
    """
    return PurePosixPath(uri.split("://", 1)[-1]).name or uri


def finite(value: float | None) -> float | None:
    """The number, or None when it is missing, NaN or infinite, which JSON lacks."""
    return None if value is None or not math.isfinite(value) else float(value)


def _newest(kind: type[RecordT], records: Iterable[Record]) -> RecordT | None:
    return max((r for r in records if isinstance(r, kind)), key=lambda r: (r.created_at, r.id), default=None)


def _database_exists(url: str) -> bool:
    """Whether a catalog can be opened without creating one; a server's answer is its own."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return True
    return bool(parsed.database) and Path(str(parsed.database)).is_file()
