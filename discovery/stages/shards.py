"""Per-asset results in shards: find what is missing, spread only that, keep each finished shard, never compute one twice."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discovery import schemas
from discovery.adapters.sources import read_object
from discovery.adapters.storage import Store
from discovery.addressing import matches, stage_key
from discovery.config import Config, S3Config
from discovery.core.knn import normalise
from discovery.errors import CorruptArtifact
from discovery.types import EmbeddingSet, EmbeddingShard, Manifest, MeasureShard, Record, RegionShard
from discovery.workspace import Workspace

SHARDS_A_WORKER = 8  # so that the last ones end together, whatever the workers' speeds
SMALLEST_SHARD, LARGEST_SHARD = 64, 8192  # assets: the larger one's vectors of 1,280 dimensions are 42 MB
SMALLEST_BLOCK = 4096  # vectors that are read at a time, when the shards are small
WHOLE = 16  # sizes are multiples of it, so that no shard but the last ends in a batch filled up with zeros (CPU batches have 16)

Shard = MeasureShard | EmbeddingShard
ShardT = TypeVar("ShardT", MeasureShard, EmbeddingShard, RegionShard)


@dataclass(frozen=True, slots=True)
class ShardTask:
    """A unit of work for a worker, small and picklable: which assets, and all it needs to commit the result itself."""

    config: Config
    key: str
    producer: str
    assets: tuple[tuple[str, str], ...]  # (asset_id, source_uri)
    created_at: str
    expected: int = 0  # assets that a worker will get in this run, for what pays only when there are many


@functools.lru_cache(maxsize=4)
def worker_store(root: str, s3: S3Config) -> Store:
    """One open store a worker process."""
    return Store(root, s3)


def read_asset(store: Store, asset_id: str, source_uri: str) -> bytes:
    """The bytes of an asset, from the store or from its source when it stays there; CorruptArtifact when they changed."""
    try:
        return store.get_asset(asset_id)
    except FileNotFoundError:
        data = read_object(source_uri, store.s3)
    if not matches(data, asset_id):
        raise CorruptArtifact(f"{source_uri} changed since it was ingested as {asset_id[:12]}…. Ingest its source again.")
    return data


def sources_of(manifest: Manifest, ws: Workspace) -> dict[str, str]:
    """asset_id to one source URI (the first in order) for each asset of a manifest."""
    table = ws.store.read_table(manifest, columns=["asset_id", "source_uri"])
    pairs = zip(table["asset_id"].to_pylist(), table["source_uri"].to_pylist(), strict=True)
    found: dict[str, str] = {}
    for asset_id, uri in pairs:
        if asset_id and asset_id not in found:
            found[asset_id] = uri
    return found


def fill_missing(
    kind: type[ShardT], producer: str, needed: dict[str, str], run: Callable[[ShardTask], ShardT], ws: Workspace,
    largest: int = LARGEST_SHARD,
) -> list[ShardT]:  # fmt: skip
    """Shards that together hold a row for every needed asset; only what no shard has yet is computed.

    kind: the record class. producer: what computes a row (encoder_id, measures id). needed: asset_id to source URI. run: a
    module-level function that makes and commits one shard. largest: assets in one, unless dask.shard_assets says another number. Tally: <stage>.computed and <stage>.reused, in assets;
    <stage>.<name>_ms for each field <name>_s of the shards that were computed.
    """
    holder = holders(kind, producer, ws)
    missing = sorted(set(needed) - set(holder))
    ws.tally[f"{kind.stage}.reused"] += len(needed) - len(missing)
    if not missing:
        return _used(holder, needed)
    most = max(1, len(missing) // SMALLEST_SHARD)
    width = min(most, ws.width(most))
    sizes = shard_sizes(len(missing), width, ws.config.dask.shard_assets, largest)
    created_at = ws.clock()
    given: dict[str, list[str]] = {}  # assets of the units that are under way

    def tasks() -> Iterator[ShardTask]:
        for end, size in zip(itertools.accumulate(sizes), sizes, strict=True):
            ids = missing[end - size : end]
            key = stage_key(kind.stage, kind.version, {"producer": producer}, ids)
            given[key] = ids
            yield ShardTask(ws.config, key, producer, tuple((i, needed[i]) for i in ids), created_at, -(-len(missing) // width))

    ws.report(f"{kind.stage}: {len(missing):,} assets in {len(sizes):,} shards, {len(needed) - len(missing):,} known")
    done = 0
    started = time.perf_counter()
    for shard in ws.map_shards(run, tasks()):
        ws.catalog.add_record(shard)
        ids = given.pop(shard.id)
        holder.update((asset_id, shard) for asset_id in ids)
        done += len(ids)
        ws.tally[f"{kind.stage}.computed"] += len(ids)
        for field in dataclasses.fields(shard):
            if field.name.endswith("_s"):
                ws.tally[f"{kind.stage}.{field.name.removesuffix('_s')}_ms"] += round(1000 * getattr(shard, field.name))
        rate = done / (time.perf_counter() - started)
        left = f", {(len(missing) - done) / rate:,.0f} s left" if done < len(missing) else ""
        ws.report(f"{kind.stage}: {done:,} of {len(missing):,}, {rate:,.1f} a second{left}")
    return _used(holder, needed)


def shard_sizes(assets: int, width: int, wanted: int = 0, largest: int = LARGEST_SHARD) -> list[int]:
    """Sizes of the shards of so many assets (at least 1) on `width` workers: the same number of shards for each, as equal as may be.

    wanted: all but the last have this size, when it is given. largest: none is larger than this, rounded up to a whole batch.
    """
    if wanted:
        return [min(wanted, assets - start) for start in range(0, assets, wanted)]
    a_worker = max(1, min(SHARDS_A_WORKER, assets // (SMALLEST_SHARD * width)))
    count = width * max(a_worker, -(-assets // (largest * width)))
    wholes = -(-assets // WHOLE)
    bounds = [min(assets, WHOLE * (number * wholes // count)) for number in range(count + 1)]
    return [end - start for start, end in itertools.pairwise(bounds) if end > start]


def _used(holder: dict[str, ShardT], needed: dict[str, str]) -> list[ShardT]:
    """The shards that hold the needed assets, by id."""
    used = {holder[asset_id].id: holder[asset_id] for asset_id in needed}
    return [used[key] for key in sorted(used)]


def holders(kind: type[ShardT], producer: str, ws: Workspace) -> dict[str, ShardT]:
    """asset_id to the committed shard that holds its row. Of the shards only the ids are read, no vector.

    Shards that workers committed but a killed driver never entered in the catalog are found by listing the store.
    """
    entered: dict[str, Record] = {record.id: record for record in ws.catalog.records(kind.stage)}
    for key in ws.store.committed_keys(kind.stage):
        if key not in entered and (missed := ws.store.load_record(kind, key)) is not None:
            ws.catalog.add_record(missed)
            entered[key] = missed
    holder: dict[str, ShardT] = {}
    for key in sorted(entered, reverse=True):  # the smallest id stays, when two hold an asset
        record = entered[key]
        if isinstance(record, kind) and record.producer == producer:
            ids = ws.store.peek_columns(record, ["asset_id"])["asset_id"].to_pylist()
            holder.update((asset_id, record) for asset_id in ids)
    return holder


def read_shards(shards: Sequence[Shard], wanted: Sequence[str], ws: Workspace, without: str = "") -> pa.Table:
    """One row for each wanted asset, in that order; CorruptArtifact when a shard lacks one. without: a column to leave out."""
    tables = []
    for shard in shards:
        table = ws.store.read_table(shard)
        tables.append(table.drop_columns([without]) if without in table.column_names else table)
    if not tables:
        return pa.table({"asset_id": pa.array([], pa.string())})
    table = pa.concat_tables([in_float32(table) for table in tables])
    position = {asset_id: row for row, asset_id in reversed(list(enumerate(table["asset_id"].to_pylist())))}
    if absent := [asset_id for asset_id in wanted if asset_id not in position]:
        raise CorruptArtifact(f"{len(absent)} assets have no row in their shards, first {absent[0]}. Run `discovery verify`.")
    return table.take(pa.array([position[asset_id] for asset_id in wanted], pa.int64()))


def load_vectors(sets: Sequence[EmbeddingSet], ws: Workspace) -> tuple[list[str], NDArray[np.float32]]:
    """Ids, ascending, and (n, d) float32 unit vectors of every asset in these embedding sets."""
    wanted: set[str] = set()
    shards: dict[str, EmbeddingShard] = {}
    for embedded in sets:
        wanted.update(ws.store.read_table(embedded, "members")["asset_id"].to_pylist())
        for key in embedded.shards:
            if key not in shards:
                shard = ws.store.load_record(EmbeddingShard, key)
                if shard is None:
                    raise CorruptArtifact(f"Embedding shard {key} is missing. Run `discovery verify`, then embed again.")
                shards[key] = shard
    ids = sorted(wanted)
    table = read_shards(list(shards.values()), ids, ws)
    if not ids:
        return [], np.zeros((0, sets[0].dim if sets else 0), np.float32)
    return ids, vectors_of(table)


def vectors_for(sets: Sequence[EmbeddingSet], ids: NDArray[np.bytes_], ws: Workspace) -> NDArray[np.float32]:
    """(n, d) float32 unit vectors of some assets of these embedding sets, in the order of the ids.

    Of shards that hold none of them only the ids are read. Raises CorruptArtifact when an asset is in no shard.
    """
    vectors = np.empty((len(ids), sets[-1].dim), np.float32)
    for places, part in vector_blocks(sets, ids, ws, 0):
        vectors[places] = part
    return vectors


def vector_blocks(
    sets: Sequence[EmbeddingSet], ids: NDArray[np.bytes_], ws: Workspace, least: int = SMALLEST_BLOCK
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Places in `ids` and (b, d) float32 unit vectors of these assets, shard by shard; each place comes once.

    ids: (n,) S64, each once. least: shards are put together until there are so many rows. Raises CorruptArtifact when an asset is in no shard.
    """
    order = np.argsort(ids, kind="stable")
    ordered, waiting = ids[order], np.ones(len(ids), bool)
    places: list[NDArray[np.int64]] = []
    parts: list[NDArray[np.float32]] = []
    for key in sorted({key for embedded in reversed(sets) for key in embedded.shards}):
        if not waiting.any():
            break
        shard = ws.store.load_record(EmbeddingShard, key)
        if shard is None:
            raise CorruptArtifact(f"Embedding shard {key} is missing. Run `discovery verify`, then embed again.")
        named = np.asarray(ws.store.peek_columns(shard, ["asset_id"])["asset_id"].to_pylist(), ids.dtype)
        spot = order[np.minimum(np.searchsorted(ordered, named), len(ids) - 1)]
        mine = np.flatnonzero((ids[spot] == named) & waiting[spot])
        if not len(mine):
            continue
        table = in_float32(ws.store.read_table(shard))
        places.append(spot[mine])
        parts.append(vectors_of(table)[mine])
        waiting[spot[mine]] = False
        if sum(map(len, places)) >= least:
            yield np.concatenate(places), np.concatenate(parts)
            places, parts = [], []
    if places:
        yield np.concatenate(places), np.concatenate(parts)
    if waiting.any():
        absent = ids[np.argmax(waiting)].decode()
        raise CorruptArtifact(f"{int(waiting.sum())} assets have no row in their shards, first {absent}. Run `discovery verify`.")


def in_float32(table: pa.Table) -> pa.Table:
    """A table of vectors that were stored as float16 as one of float32 unit vectors; any other as it is."""
    if "vector" not in table.column_names or table["vector"].type.value_type != pa.float16():
        return table
    return schemas.embedding_table(table["asset_id"], vectors_of(table))


def vectors_of(table: pa.Table) -> NDArray[np.float32]:
    """(n, d) float32 from the vector column, without a copy where Arrow allows; rounded float16 is brought to length 1 again."""
    column = table["vector"].combine_chunks()
    flat = column.flatten() if isinstance(column, pa.FixedSizeListArray) else column.combine_chunks().flatten()
    vectors = np.asarray(flat.to_numpy(zero_copy_only=False), dtype=np.float32).reshape(len(table), -1)
    return normalise(vectors) if flat.type == pa.float16() and len(vectors) else vectors
