"""Calibrate near-duplicates for the configured encoder, on planted copies of the library's own pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from discovery import schemas
from discovery.adapters.decode import decode, shrink
from discovery.adapters.encoders import encode_pictures, load_encoder
from discovery.adapters.planted import EDITS, PLANTED_PX, planted
from discovery.adapters.storage import table_to_parquet
from discovery.addressing import content_id
from discovery.core.duplicate_calibration import calibrate_cosine
from discovery.core.duplicates import turned_luma_pairs
from discovery.errors import InvalidInput
from discovery.stages.history import current_snapshot, embedding_sets
from discovery.stages.known_encoder import encoder_spec, find_projection
from discovery.stages.measure import measure_asset
from discovery.stages.project import load_projection
from discovery.stages.shards import load_vectors, read_asset, sources_of
from discovery.types import DuplicateCalibration, IndexSnapshot, Manifest
from discovery.workspace import Workspace

BASES = 150  # pictures that copies are planted of
LEAST_PX = 96  # shorter side: a third of less is a stamp


def calibrate(ws: Workspace) -> DuplicateCalibration:
    """Plant copies of some indexed pictures, embed them, and keep from which cosine on vectors propose a copy.

    The pictures are those with the smallest digests of their ids, so the same library gives the same calibration. From the next batch on
    `dedupe` uses it, and compares all again. Raises InvalidInput when fewer than 200 pictures are indexed, CorruptArtifact.
    """
    snapshot = current_snapshot(ws)
    encoder_id = encoder_spec(ws).encoder_id
    if snapshot.encoder_id != encoder_id:
        raise InvalidInput(f"The index is of {snapshot.encoder_id}, the encoder is {encoder_id}. Run `discovery run SOURCE` with it first.")
    key = ws.key(DuplicateCalibration, [], [snapshot.id], bases=BASES, edits=sorted(EDITS))
    if (found := ws.find(DuplicateCalibration, key)) is not None:
        return found
    ids, vectors = load_vectors(embedding_sets(snapshot, ws), ws)
    place = {asset_id: row for row, asset_id in enumerate(ids)}
    originals: list[int] = []
    missed: list[bytes] = []
    bases = 0
    for asset_id, image in _pictures(ids, snapshot, ws):
        copies = [planted(image, name, np.random.default_rng(int(content_id([asset_id, name])[:8], 16))) for name in EDITS]
        unseen = [copy for copy in copies if not _seen_by_luma(image, copy, ws.config.dedupe.min_luma_correlation)]
        originals += [place[asset_id]] * len(unseen)
        missed += unseen
        bases += 1
        if bases == BASES:
            break
        if bases % 25 == 0:
            ws.report(f"calibrate: copies of {bases} of {BASES} pictures planted")
    embedded = encode_pictures(load_encoder(ws.config.encoder, ws.config.s3), missed)
    if ws.config.encoder.projection:
        embedded = load_projection(find_projection(ws.config.encoder.projection, ws), ws)(embedded)
    result = calibrate_cosine(vectors, vectors[originals], embedded)
    rows = np.concatenate([result.projection.mean[np.newaxis], result.projection.axes.T])
    flat = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1), pa.float32()), rows.shape[1])
    table = pa.Table.from_arrays(
        [pa.array([None, *result.projection.variances.tolist()], pa.float64()), flat], schema=schemas.projection(rows.shape[1])
    )
    file = ws.put_file(DuplicateCalibration, key, "table", table_to_parquet(table), ".parquet", len(table))
    return ws.commit(
        DuplicateCalibration(
            id=key, inputs=(snapshot.id,), created_at=ws.clock(), files=(file,), encoder_id=encoder_id, dim=rows.shape[0] - 1, bases=bases,
            copies=len(missed), threshold=result.threshold, recall=round(result.recall, 4),
            recall_lower_bound=round(result.recall_lower_bound, 4), proposals_per_asset=round(result.proposals_per_asset, 2),
        )
    )  # fmt: skip


def _pictures(ids: list[str], snapshot: IndexSnapshot, ws: Workspace) -> Iterator[tuple[str, Image.Image]]:
    """Indexed pictures in a fixed, mixed order, at most PLANTED_PX wide and high."""
    sources: dict[str, str] = {}
    for manifest_id in snapshot.manifests:
        manifest = ws.store.load_record(Manifest, manifest_id)
        sources.update(sources_of(manifest, ws) if manifest is not None else {})
    for asset_id in sorted(ids, key=lambda one: content_id(["calibrate", one])):
        image = shrink(decode(read_asset(ws.store, asset_id, sources[asset_id]), max_pixels=2**62).image, PLANTED_PX)
        if min(image.size) >= LEAST_PX:
            yield asset_id, image


def _seen_by_luma(image: Image.Image, copy: bytes, threshold: float) -> bool:
    """Whether the small luma of a planted copy proposes it without any vector."""
    sink = io.BytesIO()
    image.save(sink, "PNG", compress_level=1)
    luma: list[NDArray[np.uint8]] = [np.frombuffer(row["luma_16"], np.uint8) for row in map(_measured, (sink.getvalue(), copy))]
    return len(turned_luma_pairs(np.stack(luma), threshold)[0]) > 0


def _measured(data: bytes) -> dict[str, bytes]:
    return {"luma_16": measure_asset("", data)["luma_16"]}  # type: ignore[dict-item]
