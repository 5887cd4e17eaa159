"""One shard of vectors, on a worker: read, decode, encode and write at once, in memory that does not grow with the shard."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from discovery import schemas
from discovery.adapters.cores import share_of_cores
from discovery.adapters.encoder_spec import Encoder, empty_batch
from discovery.adapters.encoders import load_encoder
from discovery.adapters.read_ahead import ReadAhead, Seconds
from discovery.adapters.storage import table_to_parquet
from discovery.config import DaskConfig
from discovery.core.vectors import require_unit_vectors
from discovery.errors import EncoderMismatch
from discovery.stages.shards import ShardTask, read_asset, worker_store
from discovery.types import EmbeddingShard

BATCHES = 3  # in memory: one that is encoded, one that is ready, one that is filled
ENCODING = 2  # batches a GPU has at once: the copy of one overlaps the forward pass of the other


@dataclass
class EncodeSeconds(Seconds):
    """And of the encoder: encode_s, in which the caller could only wait for it; copy_s, of the copies to the device, beside all else."""

    encode_s: float = 0.0
    copy_s: float = 0.0


def embed_shard(task: ShardTask) -> EmbeddingShard:
    """Embed the assets of one task and commit the shard.

    Raises EncoderMismatch when this worker's encoder is another than the one the work was planned for; InvalidInput when the encoder
    gives what is no finite unit vector; CorruptArtifact when an asset's bytes are lost or changed.
    """
    store = worker_store(task.config.root, task.config.s3)
    if (found := store.load_record(EmbeddingShard, task.key)) is not None:
        return found
    encoder = load_encoder(task.config.encoder, task.config.s3)
    if encoder.spec.encoder_id != task.producer:
        raise EncoderMismatch(
            f"This worker has {encoder.spec.encoder_id}, the work is for {task.producer}. Install the same weights and versions on all workers."
        )
    started = time.perf_counter()
    if (prepare := getattr(encoder, "prepare", None)) is not None:
        prepare(task.expected)
    vectors, seconds = encode_assets(
        encoder, lambda row: read_asset(store, *task.assets[row]), len(task.assets), task.config.dask
    )
    asset_ids = [asset_id for asset_id, _ in task.assets]
    require_unit_vectors(vectors, asset_ids, task.producer)
    table = schemas.embedding_table(asset_ids, vectors.astype(task.config.encoder.stored))
    written = time.perf_counter()
    file = store.put_file(EmbeddingShard.stage, task.key, "table", table_to_parquet(table), ".parquet", len(asset_ids))
    now = time.perf_counter()
    return store.commit(
        EmbeddingShard(
            id=task.key, inputs=(), created_at=task.created_at, files=(file,), producer=task.producer, dim=encoder.spec.dim,
            assets=len(asset_ids), runtime=encoder.runtime, read_s=round(seconds.read_s, 3), decode_s=round(seconds.decode_s, 3),
            wait_s=round(seconds.wait_s, 3), encode_s=round(seconds.encode_s, 3),
            copy_s=round(seconds.copy_s, 3), write_s=round(now - written, 3),
            total_s=round(now - started, 3),
        )
    )  # fmt: skip


def encode_assets(
    encoder: Encoder, read: Callable[[int], bytes], rows: int, config: DaskConfig
) -> tuple[NDArray[np.float32], EncodeSeconds]:
    """(rows, dim) float32 vectors of the pictures whose bytes `read(row)` gives, in order, and where the time went.

    `read` and `encoder.preprocess` run on threads, ahead of `encoder.encode`, by at most BATCHES batches.
    """
    size = encoder.batch_size
    ring = [empty_batch(encoder) for _ in range(min(BATCHES, -(-rows // size)))]
    vectors = np.empty((rows, encoder.spec.dim), np.float32)
    seconds = EncodeSeconds()

    def decode_row(row: int, data: bytes) -> None:
        ring[row // size % len(ring)][row % size] = encoder.preprocess(data)

    def encode_batch(start: int) -> None:
        end = min(start + size, rows)
        vectors[start:end] = encoder.encode(ring[start // size % len(ring)][: end - start])

    copied_before = getattr(encoder, "copy_s", 0.0)
    threads = config.decode_threads or share_of_cores()
    with ReadAhead(read, decode_row, rows, config.read_threads, threads) as ahead, ThreadPoolExecutor(ENCODING) as pool:
        ahead.allow(len(ring) * size)
        running: deque[Future[None]] = deque()
        for start in range(0, rows, size):
            ahead.wait_until(start + size)
            began = time.perf_counter()
            if not encoder.runtime.startswith("cuda"):  # in this thread: each thread has torch threads of its own
                encode_batch(start)
            else:
                running.append(pool.submit(encode_batch, start))
                if len(running) == ENCODING:
                    running.popleft().result()
            seconds.encode_s += time.perf_counter() - began
            ahead.allow(start + (len(ring) + 1 - len(running)) * size)
        began = time.perf_counter()
        while running:
            running.popleft().result()
        seconds.encode_s += time.perf_counter() - began
    seconds.copy_s = getattr(encoder, "copy_s", 0.0) - copied_before
    seconds.read_s, seconds.decode_s, seconds.wait_s = ahead.seconds.read_s, ahead.seconds.decode_s, ahead.seconds.wait_s
    return vectors, seconds
