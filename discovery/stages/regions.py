"""Regions: the vectors of parts of pictures, computed once for an asset and region encoder, and the assets whose parts are nearest to a query."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discovery import schemas
from discovery.adapters.cores import share_of_cores
from discovery.adapters.cutout import opaque_part
from discovery.adapters.read_ahead import ReadAhead
from discovery.adapters.region_encoder import Fitted, RegionEncoder, load_region_encoder
from discovery.adapters.storage import table_to_parquet
from discovery.core.regions import boxes, nearest_region, windows
from discovery.core.vectors import require_unit_vectors
from discovery.errors import EncoderMismatch, InvalidInput
from discovery.stages.query import Box
from discovery.stages.shards import ShardTask, fill_missing, holders, read_asset, worker_store
from discovery.types import RegionShard
from discovery.workspace import Workspace

LARGEST_REGION_SHARD = 1024  # assets: 30 MB, which a search holds at once
AHEAD = 4  # batches that are decoded before they are encoded


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


def search_regions(query: NDArray[np.float32], allowed: Mapping[str, str], k: int, ws: Workspace) -> list[RegionMatch]:
    """The k assets whose nearest region is nearest to the query, nearest first, equals by id; exact.

    query: (dim,) unit, of `region_query`, or the unit mean of several. allowed: asset_id to source URI of all that may be found. Regions that
    are lacking are computed first, once ever, unless they are more than regions.at_search. Memory: a shard of at most LARGEST_REGION_SHARD
    assets at a time, and the ids. Raises InvalidInput: a query of another encoder, k under 1, too many regions lacking; CorruptArtifact.
    """
    encoder = load_region_encoder(ws.config)
    if query.shape != (encoder.spec.dim,) or k < 1:
        raise InvalidInput(f"Expected a ({encoder.spec.dim},) query and k >= 1, found {query.shape} and {k}.")
    producer = encoder.spec.region_encoder_id
    held = holders(RegionShard, producer, ws)
    lacking = len(allowed.keys() - held.keys())
    if lacking > ws.config.regions.at_search:
        raise InvalidInput(
            f"{lacking:,} of {len(allowed):,} assets have no regions yet, and a search computes {ws.config.regions.at_search:,} at most "
            "(regions.at_search). Compute them once: discovery regions. Or search fewer: --where."
        )
    if lacking:
        ws.report(f"regions: {lacking:,} of {len(allowed):,} assets are described for the first time, which is kept")
        describe_regions(allowed, ws)
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
    column = table["vectors"].combine_chunks()
    counts = np.diff(column.offsets.to_numpy()).astype(np.int64)
    vectors = column.flatten().flatten().to_numpy(zero_copy_only=False).reshape(-1, shard.dim)
    distances, places = nearest_region(query, vectors, counts)
    for row in np.lexsort((np.asarray(ids, dtype=np.str_), distances))[:k].tolist():
        rows, columns, width, height = (table[name][row].as_py() for name in ("rows", "columns", "width_px", "height_px"))
        box = boxes(rows, columns, width, height)[places[row]]
        yield RegionMatch(ids[row], float(distances[row]), Box(*(int(value) for value in box)))


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
    columns: dict[str, list[int]] = {name: [] for name in ("width_px", "height_px", "rows", "columns")}
    vectors: list[NDArray[np.float16]] = []

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
                vectors.append(found.astype(np.float16))
                for name, values in columns.items():
                    values.append(getattr(picture, name))
            encode_s += time.perf_counter() - began
        wait_s = ahead.seconds.wait_s
    table = _table(asset_ids, columns, vectors, encoder)
    file = store.put_file(RegionShard.stage, task.key, "table", table_to_parquet(table), ".parquet", len(asset_ids))
    return store.commit(
        RegionShard(
            id=task.key, inputs=(), created_at=task.created_at, files=(file,), producer=task.producer, dim=encoder.spec.dim,
            assets=len(asset_ids), regions=sum(len(found) for found in vectors), runtime=encoder.runtime, wait_s=round(wait_s, 3),
            encode_s=round(encode_s, 3), total_s=round(time.perf_counter() - started, 3),
        )
    )  # fmt: skip


def _table(asset_ids: list[str], columns: dict[str, list[int]], vectors: list[NDArray[np.float16]], encoder: RegionEncoder) -> pa.Table:
    """The rows of one shard; each has as many vectors as its grid has windows."""
    counts = [len(windows(rows, across)) for rows, across in zip(columns["rows"], columns["columns"], strict=True)]
    if counts != [len(found) for found in vectors]:
        raise InvalidInput(f"{encoder.spec.region_encoder_id} gave another number of regions than the grids of its pictures have windows.")
    flat = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(vectors).reshape(-1), pa.float16()), encoder.spec.dim)
    lists = pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32()), flat)
    schema = schemas.regions(encoder.spec.dim)
    arrays = [pa.array(values, schema.field(name).type) for name, values in columns.items()]
    return pa.Table.from_arrays([pa.array(asset_ids, pa.string()), *arrays, lists], schema=schema)
