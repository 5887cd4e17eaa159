"""Projections of an encoder's vectors: fitted on a reference, and applied to stored vectors, so that no picture is embedded again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from discovery import schemas
from discovery.adapters.storage import table_to_parquet
from discovery.addressing import stage_key
from discovery.core.projection import Projection, fit_projection
from discovery.core.vectors import require_unit_vectors
from discovery.errors import CorruptArtifact, EncoderMismatch, InvalidInput
from discovery.stages.history import embedding_sets, head_snapshot, load_snapshot
from discovery.stages.known_encoder import base_spec
from discovery.stages.shards import load_vectors, vectors_of
from discovery.stages.versions import find_version, member_ids
from discovery.types import EmbeddingShard, FittedProjection
from discovery.workspace import Workspace


def fit(ws: Workspace, dim: int, whitening: float = 0.0, reference: str = "") -> FittedProjection:
    """A projection of the configured model's vectors, fitted on a reference: a version (`name@number`), or all that is indexed.

    whitening: 0 to 1, see `fit_projection`. To use it, set encoder.projection to its id. Raises InvalidInput when the reference is too
    small, EncoderMismatch when the version is of another encoder, UnknownRecord.
    """
    if not 0 <= whitening <= 1:
        raise InvalidInput(f"--whitening must be from 0 to 1, found {whitening:g}.")
    encoder_id = base_spec(ws).encoder_id
    wanted: set[str] | None = None
    if reference:
        version = find_version(reference, ws)
        if version.encoder_id != encoder_id:
            raise EncoderMismatch(f"{reference} is of encoder {version.encoder_id}, the projection is for {encoder_id}. Set encoder.name to its encoder.")
        snapshot, wanted, reference_id = load_snapshot(version.snapshot_id, ws), set(member_ids(version, ws)), version.id
    else:
        head = head_snapshot(encoder_id, ws)
        if head is None:
            raise InvalidInput(f"There is no index of {encoder_id} to fit a projection on. Run `discovery run SOURCE` first, without a projection.")
        snapshot, reference_id = head, head.id
    key = ws.key(FittedProjection, [], [reference_id], encoder_id=encoder_id, dim=dim, whitening=whitening)
    if (found := ws.find(FittedProjection, key)) is not None:
        return found
    ids, vectors = load_vectors(embedding_sets(snapshot, ws), ws)
    if wanted is not None:
        vectors = vectors[[row for row, asset_id in enumerate(ids) if asset_id in wanted]]
    fitted = fit_projection(vectors, dim, whitening)
    rows = np.concatenate([fitted.mean[np.newaxis], fitted.axes.T])
    width = int(vectors.shape[1])
    table = pa.Table.from_arrays(
        [
            pa.array([None, *fitted.variances.tolist()], pa.float64()),
            pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1), pa.float32()), width),
        ],
        schema=schemas.projection(width),
    )
    file = ws.put_file(FittedProjection, key, "table", table_to_parquet(table), ".parquet", len(table))
    return ws.commit(
        FittedProjection(
            id=key, inputs=(reference_id,), created_at=ws.clock(), files=(file,), encoder_id=encoder_id, dim=dim, whitening=whitening,
            rows=len(vectors), explained=round(fitted.explained, 6),
        )
    )  # fmt: skip


def load_projection(record: FittedProjection, ws: Workspace) -> Projection:
    """What it does, as arrays. Raises CorruptArtifact."""
    table = ws.store.read_table(record)
    if len(table) != record.dim + 1:
        raise CorruptArtifact(f"Projection {record.id} has {len(table)} rows, expected {record.dim + 1}. Run `discovery verify`.")
    rows = vectors_of(table)
    return Projection(rows[0], np.ascontiguousarray(rows[1:].T), np.array(table["variance"].to_pylist()[1:], np.float64), record.explained)


def project_shards(shards: Sequence[EmbeddingShard], record: FittedProjection, encoder_id: str, ws: Workspace) -> list[EmbeddingShard]:
    """Each shard's vectors under a projection, as a shard of their own; those that exist are found. Memory: a shard at a time."""
    projection: Projection | None = None
    made = []
    for shard in shards:
        key = stage_key(EmbeddingShard.stage, EmbeddingShard.version, {"producer": encoder_id}, [record.id, shard.id])
        projected = ws.find(EmbeddingShard, key)
        if projected is None:
            projection = projection or load_projection(record, ws)
            table = ws.store.read_table(shard)
            vectors = projection(vectors_of(table))
            require_unit_vectors(vectors, table["asset_id"].to_pylist(), encoder_id)
            data = table_to_parquet(schemas.embedding_table(table["asset_id"], vectors))
            file = ws.put_file(EmbeddingShard, key, "table", data, ".parquet", len(vectors))
            projected = ws.commit(
                EmbeddingShard(
                    id=key, inputs=(shard.id, record.id), created_at=ws.clock(), files=(file,), producer=encoder_id, dim=record.dim,
                    assets=len(vectors), runtime=f"projection of {shard.producer}",
                )
            )  # fmt: skip
            ws.tally["embed_shard.projected"] += len(vectors)
        made.append(projected)
    return made
