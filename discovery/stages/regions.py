"""Regions: the vectors of parts of pictures, computed once for an asset and region encoder, and the assets whose parts are nearest to a query."""

from __future__ import annotations

import dataclasses
import heapq
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discovery import schemas
from discovery.adapters.cores import share_of_cores
from discovery.adapters.cutout import opaque_part
from discovery.adapters.read_ahead import ReadAhead
from discovery.adapters.region_encoder import Fitted, load_region_encoder
from discovery.adapters.storage import table_to_parquet
from discovery.core.regions import boxes, nearest_region, quantised, windows
from discovery.core.vectors import require_unit_vectors
from discovery.errors import EncoderMismatch, InvalidInput
from discovery.stages.query import Box
from discovery.stages.shards import ShardTask, fill_missing, holders, read_asset, worker_store
from discovery.types import RegionShard
from discovery.workspace import Workspace

LARGEST_REGION_SHARD = 2048  # assets: 28 MB, which a search holds at once
AHEAD = 4  # batches that are decoded before they are encoded
NO_PIXELS = np.zeros((0, 0, 3), np.uint8)


@dataclass(frozen=True, slots=True)
class RegionMatch:
    """An asset, the cosine distance in [0, 2] of the query to its nearest region, and where that is, in pixels of the upright picture."""

    asset_id: str
    distance: float
    box: Box


def describe_regions(needed: Mapping[str, str], ws: Workspace) -> list[RegionShard]:
    """Shards that together hold the regions of these assets (asset_id to source URI); only what no shard has yet is computed.

    Raises EncoderNotFound; InvalidInput for an encoder that knows no places. Tally: region_shard.computed, region_shard.reused, in assets.
    """
    producer = load_region_encoder(ws.config).spec.region_encoder_id
    return fill_missing(RegionShard, producer, dict(needed), region_shard, ws, LARGEST_REGION_SHARD)


def region_query(data: bytes, ws: Workspace) -> NDArray[np.float32]:
    """(dim,) float32 unit vector of a picture that is a part of what is looked for; of one cut out round, its opaque part.

    Raises Undecodable, EncoderNotFound; InvalidInput for an encoder that knows no places.
    """
    return load_region_encoder(ws.config).query(opaque_part(data))


def search_regions(
    query: NDArray[np.float32], allowed: Collection[str], k: int, ws: Workspace, sources: Callable[[set[str]], Mapping[str, str]]
) -> list[RegionMatch]:
    """The k assets whose nearest region is nearest to the query, nearest first, equals by id; exact.

    query: (dim,) unit, of `region_query`, or the unit mean of several. allowed: ids of all that may be found. sources: asked for the source URIs
    of those without regions, which are then computed, once ever, unless they are more than regions.at_search. Memory: a shard of at
    most LARGEST_REGION_SHARD assets at a time, and the ids. Raises InvalidInput: a query of another encoder, k under 1, too many
    without regions; CorruptArtifact.
    """
    encoder = load_region_encoder(ws.config)
    if query.shape != (encoder.spec.dim,) or k < 1:
        raise InvalidInput(f"Expected a ({encoder.spec.dim},) query and k >= 1, found {query.shape} and {k}.")
    producer = encoder.spec.region_encoder_id
    held = holders(RegionShard, producer, ws)
    lacking = set(allowed) - held.keys()
    if len(lacking) > ws.config.regions.at_search:
        raise InvalidInput(
            f"{len(lacking):,} of {len(allowed):,} assets have no regions yet, and a search computes {ws.config.regions.at_search:,} at most "
            "(regions.at_search). Compute them once: discovery regions. Or search fewer: --where."
        )
    if lacking:
        ws.report(f"regions: {len(lacking):,} of {len(allowed):,} assets are described for the first time, which is kept")
        describe_regions(sources(lacking), ws)
        held = holders(RegionShard, producer, ws)
    wanted: dict[str, set[str]] = {}
    for asset_id in allowed:
        wanted.setdefault(held[asset_id].id, set()).add(asset_id)
    shards = {held[asset_id].id: held[asset_id] for asset_id in allowed}
    nearest: list[RegionMatch] = []
    for key in sorted(shards):
        found = _nearest_of_shard(query, shards[key], wanted[key], k, ws)
        nearest = heapq.nsmallest(k, [*nearest, *found], key=lambda match: (match.distance, match.asset_id))
    return nearest


def _nearest_of_shard(query: NDArray[np.float32], shard: RegionShard, wanted: set[str], k: int, ws: Workspace) -> Iterator[RegionMatch]:
    """The k nearest of the wanted assets of one shard."""
    table = ws.store.read_table(shard)
    table = table.filter(pa.array([asset_id in wanted for asset_id in table["asset_id"].to_pylist()], pa.bool_()))
    ids = table["asset_id"].to_pylist()
    distances, places = nearest_region(query, *region_vectors(table, shard.dim))
    for row in np.lexsort((np.asarray(ids, dtype=np.str_), distances))[:k].tolist():
        rows, columns, width, height = (table[name][row].as_py() for name in ("rows", "columns", "width_px", "height_px"))
        box = boxes(rows, columns, width, height)[places[row]]
        yield RegionMatch(ids[row], float(distances[row]), Box(*(int(value) for value in box)))


def region_vectors(table: pa.Table, dim: int) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """(n, dim) int8, the vectors of all regions in a shard's table, asset after asset, and (m,) how many each asset has. Without a copy."""
    column = table["vectors"].combine_chunks()
    _, offsets, data = column.buffers()
    bounds = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1].astype(np.int64)
    values = np.frombuffer(data, np.int8)[bounds[0] : bounds[-1]] if data is not None else np.zeros(0, np.int8)
    return values.reshape(-1, dim), np.diff(bounds) // dim


def region_table(asset_ids: Sequence[str], pictures: Sequence[Fitted], vectors: Sequence[NDArray[np.float32]]) -> pa.Table:
    """The rows of one shard; an asset has as many vectors as its grid has windows. Raises InvalidInput when it has another number."""
    for picture, found in zip(pictures, vectors, strict=True):
        if len(windows(picture.rows, picture.columns)) != len(found):
            raise InvalidInput(f"{len(found)} regions of a picture whose grid of {picture.rows} x {picture.columns} has another number of windows.")
    columns = [[getattr(picture, name) for picture in pictures] for name in schemas.REGIONS.names[1:-1]]
    data = [quantised(found).tobytes() for found in vectors]
    arrays = [pa.array(values, field.type) for values, field in zip([asset_ids, *columns, data], schemas.REGIONS, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schemas.REGIONS)


def region_shard(task: ShardTask) -> RegionShard:
    """Describe the assets of one task and commit the shard, on a worker.

    Raises EncoderMismatch when this worker's encoder is another than the one the work was planned for; CorruptArtifact when an asset's
    bytes are lost or changed.
    """
    store = worker_store(task.config.root, task.config.s3)
    if (known := store.load_record(RegionShard, task.key)) is not None:
        return known
    encoder = load_region_encoder(task.config)
    if encoder.spec.region_encoder_id != task.producer:
        raise EncoderMismatch(
            f"This worker has {encoder.spec.region_encoder_id}, the work is for {task.producer}. Install the same weights and versions on all workers."
        )
    started = time.perf_counter()
    asset_ids = [asset_id for asset_id, _ in task.assets]
    fitted: dict[int, Fitted] = {}
    pictures: list[Fitted] = []  # without their pixels
    vectors: list[NDArray[np.float32]] = []

    def decode_row(row: int, data: bytes) -> None:
        fitted[row] = encoder.fit(data)

    encode_s = 0.0
    dask, size = task.config.dask, encoder.batch_size
    read_threads, threads = dask.read_threads, dask.decode_threads or share_of_cores()
    with ReadAhead(lambda row: read_asset(store, *task.assets[row]), decode_row, len(asset_ids), read_threads, threads) as ahead:
        for start in range(0, len(asset_ids), size):
            ahead.allow(start + AHEAD * size)
            ahead.wait_until(start + size)
            some = [fitted.pop(row) for row in range(start, min(start + size, len(asset_ids)))]
            began = time.perf_counter()
            for offset, (picture, found) in enumerate(zip(some, encoder.regions(some), strict=True)):
                require_unit_vectors(found, [asset_ids[start + offset]] * len(found), task.producer)
                vectors.append(found)
                pictures.append(dataclasses.replace(picture, pixels=NO_PIXELS))
            encode_s += time.perf_counter() - began
        wait_s = ahead.seconds.wait_s
    data = table_to_parquet(region_table(asset_ids, pictures, vectors), plain=["vectors"])
    file = store.put_file(RegionShard.stage, task.key, "table", data, ".parquet", len(asset_ids))
    return store.commit(
        RegionShard(
            id=task.key, inputs=(), created_at=task.created_at, files=(file,), producer=task.producer, dim=encoder.spec.dim,
            assets=len(asset_ids), regions=sum(len(found) for found in vectors), runtime=encoder.runtime, wait_s=round(wait_s, 3),
            encode_s=round(encode_s, 3), total_s=round(time.perf_counter() - started, 3),
        )
    )  # fmt: skip
