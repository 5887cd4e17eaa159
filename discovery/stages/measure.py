"""Measures of assets: quality numbers and the hashes that find copies, computed once an asset, on the workers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from discovery import schemas
from discovery.adapters.allocator import keep_freed_memory
from discovery.adapters.cores import share_of_cores
from discovery.adapters.decode import decode, shrink
from discovery.adapters.read_ahead import ReadAhead
from discovery.adapters.storage import table_to_parquet
from discovery.addressing import content_id
from discovery.core.measures import MEASURES, measure_image, small_luma, small_picture
from discovery.core.picture import cut_tiles
from discovery.stages.shards import ShardTask, fill_missing, read_asset, worker_store
from discovery.types import MeasureShard
from discovery.workspace import Workspace

MEASURED_PX = 512  # longer side; sharpness and PDQ depend on the scale, so it is fixed
DETAIL_PX = 2048  # shorter side at which noise and blocks are measured, or a JPEG's next larger scale: all of a phone's 12 megapixels, half of 48
COPIES_VERSION = 2  # raise it with MEASURES_VERSION when what copies are found by changes: hashes and small pictures
MEASURES_VERSION = 3  # raise it when a measure changes its value; all assets are then measured again


def producer_id() -> str:
    """Id of what makes a row: the measures' names and version."""
    return content_id(["measures", MEASURES_VERSION, MEASURED_PX, DETAIL_PX, sorted(MEASURES)])


def measure(needed: dict[str, str], ws: Workspace) -> list[MeasureShard]:
    """Shards with the measures of these assets (asset_id to source URI); only unmeasured ones are read."""
    return fill_missing(MeasureShard, producer_id(), needed, measure_shard, ws)


def measure_shard(task: ShardTask) -> MeasureShard:
    """Measure the assets of one task and commit the shard; runs on a worker."""
    store = worker_store(task.config.root, task.config.s3)
    if (found := store.load_record(MeasureShard, task.key)) is not None:
        return found
    rows: list[dict[str, object]] = [{}] * len(task.assets)
    keep_freed_memory()  # the arrays of a picture are as large as those of the next: a fifth of the time of all measures

    def measure_row(row: int, data: bytes) -> None:
        rows[row] = measure_asset(task.assets[row][0], data)

    threads = task.config.dask.decode_threads or share_of_cores()
    with ReadAhead(
        lambda row: read_asset(store, *task.assets[row]), measure_row, len(rows), task.config.dask.read_threads, threads
    ) as ahead:
        ahead.allow(len(rows))
        ahead.wait_until(len(rows))
    table = pa.Table.from_pylist(rows, schema=schemas.measures(sorted(MEASURES)))
    file = store.put_file(MeasureShard.stage, task.key, "table", table_to_parquet(table), ".parquet", len(rows))
    return store.commit(
        MeasureShard(id=task.key, inputs=(), created_at=task.created_at, files=(file,), producer=task.producer, assets=len(rows))
    )


def measure_asset(asset_id: str, data: bytes) -> dict[str, object]:
    """One row of the measures table. Raises Undecodable when the bytes are no picture, which ingest had excluded."""
    import pdqhash

    image = decode(data, max_pixels=2**62, at_least_px=DETAIL_PX).image
    tiles = cut_tiles(np.asarray(image))
    pixels = np.ascontiguousarray(shrink(image, MEASURED_PX))
    bits, quality = pdqhash.compute(pixels)
    picture = small_picture(pixels)
    return {
        "asset_id": asset_id,
        "pdq_hash": np.packbits(np.asarray(bits, dtype=np.uint8)).tobytes(),
        "pdq_quality": int(quality),
        "luma_16": small_luma(picture).tobytes(),
        "picture_64": picture.tobytes(),
        **measure_image(pixels, tiles),
    }
