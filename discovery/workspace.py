"""What a stage works in: settings, store, catalog, a way to spread work, and a tally of the work that was really done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from discovery.adapters.catalog import Catalog
from discovery.adapters.storage import Store
from discovery.addressing import stage_key
from discovery.config import Config, Section
from discovery.types import FileRef, Record

T = TypeVar("T")
R = TypeVar("R")
RecordT = TypeVar("RecordT", bound=Record)


class MapShards(Protocol):
    """Runs a module-level function over units of work, in any order, and yields the results as they finish."""

    def __call__(self, function: Callable[[T], R], tasks: Iterable[T], /) -> Iterable[R]:
        """The results, one for each task, in any order."""
        ...


def utc_now() -> str:
    """The time of this call, UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class Workspace:
    """Passed to every stage. `tally` counts work done since it was opened (objects read, vectors computed, …), not results."""

    config: Config
    store: Store
    catalog: Catalog
    map_shards: MapShards
    tally: Counter[str] = field(default_factory=Counter)
    clock: Callable[[], str] = utc_now
    report: Callable[[str], None] = lambda message: None
    cache: dict[str, Any] = field(default_factory=dict)  # what stages keep open as long as the workspace is

    def key(self, kind: type[Record], sections: Sequence[Section], inputs: Sequence[str], **extra: Any) -> str:
        """The id of the record that `kind`'s stage makes of these inputs under these settings."""
        identity = {type(section).__name__: section.identity() for section in sections}
        return stage_key(kind.stage, kind.version, {**identity, **extra}, inputs)

    def width(self, units: int) -> int:
        """Workers that `map_shards` would spread so many units over; 1 where it works in this process."""
        width: Callable[[int], int] = getattr(self.map_shards, "width", lambda units: 1)
        return width(units)

    def find(self, kind: type[RecordT], key: str) -> RecordT | None:
        """The committed record of that key, or None; a record the catalog missed (a kill between both) is entered now."""
        record = self.store.load_record(kind, key)
        if record is not None:
            self.catalog.add_record(record)
        return record

    def commit(self, record: RecordT) -> RecordT:
        """Make `record` visible; when another writer was first, theirs is returned."""
        winner = self.store.commit(record)
        self.catalog.add_record(winner)
        return winner

    def thumbnail(self, asset_id: str) -> bytes:
        """The WebP of an asset, of the configured size; empty when it was lost, swept or made at another size, so that a page shows the rest."""
        try:
            return self.store.thumbnail(asset_id, self.config.ingest.thumbnail_px)
        except FileNotFoundError:
            return b""

    def put_file(self, kind: type[Record], key: str, role: str, data: bytes | Path, suffix: str, rows: int = 0) -> FileRef:
        """Write one file of a record to come, from bytes or from a local file; invisible until the record is committed."""
        return self.store.put_file(kind.stage, key, role, data, suffix, rows)


@contextmanager
def open_workspace(
    config: Config, *, map_shards: MapShards | None = None, report: Callable[[str], None] | None = None
) -> Iterator[Workspace]:
    """Open store and catalog (migrating it), and the Dask cluster on first use; all closed at the end.

    Raises AccessDenied, StorageError or CatalogError when the root or the catalog cannot be used.
    """
    from discovery.adapters.dask_map import LazyDaskMap

    store = Store(config.root, config.s3, leased=True)
    catalog = Catalog(config.catalog_url, store.journal)
    tell = report or (lambda message: None)
    dask_map = LazyDaskMap(config.dask, tell, uses_gpus=config.encoder.device != "cpu") if map_shards is None else None
    try:
        yield Workspace(config, store, catalog, map_shards or dask_map, report=tell)  # type: ignore[arg-type]
    finally:
        if dask_map is not None:
            dask_map.close()
        catalog.close()
        store.close()
