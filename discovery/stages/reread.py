"""Read again: whether drawn members of a version still are what was recorded of them, by their bytes, measures, thumbnails and vectors."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discovery.adapters.cores import share_of_cores
from discovery.adapters.decode import Undecodable
from discovery.adapters.encoders import load_encoder
from discovery.adapters.read_ahead import ReadAhead
from discovery.core.draws import draw, id_array
from discovery.core.measures import MEASURES
from discovery.core.samples import Sample
from discovery.errors import CorruptArtifact, SourceChanged, SourceNotFound
from discovery.stages.embed_shard import encode_assets
from discovery.stages.measure import measure_asset
from discovery.stages.shards import read_asset
from discovery.types import DatasetVersion
from discovery.workspace import Workspace

SAME_MEASURE = 1e-3  # relative: other versions of Pillow and numpy round otherwise; another picture differs by more
SAME_VECTOR = 1e-3  # of cosine: what vectors made in another precision or on another device agree within (docs/settings.md)


@dataclass(frozen=True, slots=True)
class Reread:
    """By check (bytes, measures, thumbnails, vectors) how many members were looked at and were wrong, and what is wrong with each, by asset id."""

    samples: dict[str, Sample]
    wrong: dict[str, dict[str, str]]
    note: str


def reread(version: DatasetVersion, members: pa.Table, vectors: NDArray[np.float32], ws: Workspace) -> Reread:
    """Draw members by the configured salt, and compare them with what was recorded.

    members: rows of the asset table. vectors: (n, d), theirs. bytes: those in the store, or at the source where they stay there, still have their hash.
    measures: the picture decodes, and measured again gives what was recorded. thumbnails: there, and a picture. vectors: embedded again, the same within
    1e-3 of cosine; only with collection.embed_rows, and where the configured encoder made them. A storage that does not answer is an error, not a defect.
    """
    config = ws.config.collection
    ids = members["asset_id"].to_pylist()
    rows = draw(id_array(ids), config.sample_rows, config.salt).tolist()
    uris = members["source_uri"].to_pylist()
    measured = rows[: config.measure_rows]
    recorded = {name: members[name].to_pylist() for name in sorted(MEASURES) if name in members.column_names}
    wrong: dict[str, dict[str, str]] = {"bytes": {}, "thumbnails": {}, "measures": {}}

    def read(place: int) -> bytes:
        row = rows[place]
        try:
            return read_asset(ws.store, ids[row], uris[row])
        except (FileNotFoundError, CorruptArtifact, SourceNotFound, SourceChanged) as error:
            wrong["bytes"][ids[row]] = str(error)
            return b""

    def compare(place: int, data: bytes) -> None:
        row = rows[place]
        if problem := _thumbnail_problem(ids[row], ws):
            wrong["thumbnails"][ids[row]] = problem
        if place < len(measured):
            said = {name: values[row] for name, values in recorded.items()}
            if problem := _measure_problem(ids[row], data, said):
                wrong["measures"][ids[row]] = problem

    ws.report(f"check_collection: {len(rows):,} of {len(ids):,} members are read again")
    threads = ws.config.dask.decode_threads or share_of_cores()
    with ReadAhead(read, compare, len(rows), ws.config.dask.read_threads, threads) as ahead:
        ahead.allow(len(rows))
        ahead.wait_until(len(rows))
    samples = {name: Sample(len(rows), len(ids), len(wrong[name])) for name in ("bytes", "thumbnails")}
    if measured:
        samples["measures"] = Sample(len(measured), len(ids), len(wrong["measures"]))
    again = [row for row in rows[: config.embed_rows] if ids[row] not in wrong["bytes"]]
    note = ""
    if again:
        wrong["vectors"], note = _vector_problems(version, [(ids[row], uris[row]) for row in again], vectors[again], ws)
        if not note:
            samples["vectors"] = Sample(len(again), len(ids), len(wrong["vectors"]))
    return Reread(samples, wrong, note)


def _thumbnail_problem(asset_id: str, ws: Workspace) -> str:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(ws.store.thumbnail(asset_id, ws.config.ingest.thumbnail_px))) as picture:
            picture.load()
    except FileNotFoundError:
        return f"there is no thumbnail of {ws.config.ingest.thumbnail_px} px"
    except (UnidentifiedImageError, OSError, ValueError) as error:
        return f"the thumbnail is no picture: {error}"
    return ""


def _measure_problem(asset_id: str, data: bytes, recorded: Mapping[str, float | None]) -> str:
    if not data:
        return "its bytes are lost or changed"
    try:
        again = measure_asset(asset_id, data)
    except Undecodable as error:
        return f"it does not decode: {error.detail}"
    for name, value in recorded.items():
        found = cast(float, again[name])
        if value is not None and not math.isclose(found, value, rel_tol=SAME_MEASURE, abs_tol=SAME_MEASURE):
            return f"{name} is {found:.6g}, recorded is {value:.6g}"
    return ""


def _vector_problems(
    version: DatasetVersion, assets: list[tuple[str, str]], recorded: NDArray[np.float32], ws: Workspace
) -> tuple[dict[str, str], str]:
    """What is wrong with the vectors of some assets (id, source URI), or why they could not be made again."""
    encoder = load_encoder(ws.config.encoder, ws.config.s3)
    if encoder.spec.encoder_id != version.encoder_id:
        return {}, f"vectors were not made again: they are by {version.encoder_id}, the configured encoder is {encoder.spec.encoder_id}"
    made, _ = encode_assets(encoder, lambda row: read_asset(ws.store, *assets[row]), len(assets), ws.config.dask)
    apart = 1.0 - np.einsum("id,id->i", made, recorded, dtype=np.float64)
    wrong = np.flatnonzero(~(apart <= SAME_VECTOR))
    return {assets[row][0]: f"its vector is {apart[row]:.4g} of cosine away from one made again" for row in wrong}, ""
