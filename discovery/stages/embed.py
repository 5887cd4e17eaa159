"""Embed: one vector for every asset that passed its quality report, computed once for an encoder, ever."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discovery import schemas
from discovery.adapters.encoders import Encoder, load_encoder
from discovery.adapters.storage import Store, table_to_parquet
from discovery.errors import EncoderMismatch
from discovery.stages.check import accepted_assets
from discovery.stages.known_encoder import encoder_spec
from discovery.stages.shards import ShardTask, fill_missing, read_asset, sources_of, worker_store
from discovery.types import EmbeddingSet, EmbeddingShard, Manifest, QualityReport
from discovery.workspace import Workspace


def embed(manifest: Manifest, report: QualityReport, ws: Workspace) -> EmbeddingSet:
    """Vectors of the manifest's accepted assets by the configured encoder; those that exist are reused.

    Raises EncoderNotFound, SchedulerUnreachable, CorruptArtifact. Tally: embed_shard.computed, embed_shard.reused, in assets.
    """
    spec = encoder_spec(ws)
    encoder_id = spec.encoder_id
    key = ws.key(EmbeddingSet, [], [manifest.id, report.id], encoder_id=encoder_id)
    if (found := ws.find(EmbeddingSet, key)) is not None:
        ws.tally["embed_shard.reused"] += found.assets
        return found
    uris = sources_of(manifest, ws)
    needed = {asset_id: uris[asset_id] for asset_id in accepted_assets(report, ws)}
    shards = fill_missing(EmbeddingShard, encoder_id, needed, embed_shard, ws)
    members = pa.table({"asset_id": pa.array(sorted(needed), pa.string())})
    file = ws.put_file(EmbeddingSet, key, "members", table_to_parquet(members), ".parquet", len(members))
    return ws.commit(
        EmbeddingSet(
            id=key, inputs=(manifest.id, report.id, *(shard.id for shard in shards)), created_at=ws.clock(), files=(file,),
            manifest_id=manifest.id, report_id=report.id, encoder_id=encoder_id, dim=spec.dim, assets=len(needed),
            shards=tuple(shard.id for shard in shards),
        )
    )  # fmt: skip


def embed_shard(task: ShardTask) -> EmbeddingShard:
    """Embed the assets of one task and commit the shard; runs on a worker. Reading and decoding overlap the forward pass.

    Raises EncoderMismatch when this worker's encoder is another than the one the work was planned for.
    """
    store = worker_store(task.config.root, task.config.s3)
    if (found := store.load_record(EmbeddingShard, task.key)) is not None:
        return found
    encoder = load_encoder(task.config.encoder, task.config.s3)
    if encoder.spec.encoder_id != task.producer:
        raise EncoderMismatch(
            f"This worker has {encoder.spec.encoder_id}, the work is for {task.producer}. Install the same weights and versions on all workers."
        )
    vectors = np.concatenate([encoder.encode(batch) for batch in _batches(task, store, encoder)])
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1), pa.float32()), encoder.spec.dim)
    ids = pa.array([asset_id for asset_id, _ in task.assets], pa.string())
    table = pa.Table.from_arrays([ids, flat], schema=schemas.embeddings(encoder.spec.dim))
    file = store.put_file(EmbeddingShard.stage, task.key, "table", table_to_parquet(table), ".parquet", len(ids))
    return store.commit(
        EmbeddingShard(
            id=task.key, inputs=(), created_at=task.created_at, files=(file,), producer=task.producer, dim=encoder.spec.dim,
            assets=len(ids),
        )
    )  # fmt: skip


def _batches(task: ShardTask, store: Store, encoder: Encoder) -> Iterator[NDArray[np.uint8]]:
    """Batches of preprocessed pictures, the next one prepared by a thread while the caller computes."""
    size = encoder.spec.batch_size

    def prepare(start: int) -> NDArray[np.uint8]:
        chunk = task.assets[start : start + size]
        return np.stack([encoder.preprocess(read_asset(store, asset_id, uri)) for asset_id, uri in chunk])

    with ThreadPoolExecutor(1) as pool:
        starts = range(0, len(task.assets), size)
        waiting = pool.submit(prepare, 0)
        for start in starts:
            batch = waiting.result()
            if start + size < len(task.assets):
                waiting = pool.submit(prepare, start + size)
            yield batch
