"""Queries from outside, pictures and words, as vectors in the space of an index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from discovery.adapters.encoder_spec import TextEncoder
from discovery.adapters.encoders import encode_pictures, load_encoder
from discovery.core.vectors import require_unit_vectors
from discovery.errors import EncoderMismatch, InvalidInput
from discovery.stages.known_encoder import find_projection, projected_spec
from discovery.stages.project import load_projection
from discovery.types import IndexSnapshot
from discovery.workspace import Workspace


def encode_queries(images: Sequence[Path], texts: Sequence[str], snapshot: IndexSnapshot, ws: Workspace) -> NDArray[np.float32]:
    """(n, dim) float32 unit vectors, of the picture files first, then of the texts.

    Raises EncoderMismatch when the index is of another encoder; InvalidInput: no such file, an encoder without a text tower; Undecodable.
    """
    if not images and not texts:
        return np.zeros((0, snapshot.dim), np.float32)
    encoder = load_encoder(ws.config.encoder, ws.config.s3)
    spec = projected_spec(encoder.spec, ws)
    if spec.encoder_id != snapshot.encoder_id:
        raise EncoderMismatch(
            f"The index holds {snapshot.encoder_id} vectors, the query would be encoded by {spec.encoder_id}. "
            "Set encoder.name to that of the index, or build an index for this encoder."
        )
    if missing := [path for path in images if not path.is_file()]:
        raise InvalidInput(f"{missing[0]} does not exist.")
    vectors = encode_pictures(encoder, [path.read_bytes() for path in images])
    if texts:
        if not isinstance(encoder, TextEncoder) or spec.projection:
            what = "a projection of pictures does not fit texts" if isinstance(encoder, TextEncoder) else f"{encoder.spec.model} knows no words"
            raise InvalidInput(f"Search by text: {what}. Use an encoder with a text tower, encoder.name = 'open_clip:…', without a projection.")
        vectors = np.concatenate([vectors, encoder.encode_texts(texts)])
    if spec.projection:
        vectors = load_projection(find_projection(spec.projection, ws), ws)(vectors)
    require_unit_vectors(vectors, [*map(str, images), *texts], spec.encoder_id)
    return vectors
