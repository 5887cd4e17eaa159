"""Queries from outside, pictures, parts of pictures and words, as vectors in the space of an index."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from discovery.adapters.decode import decode
from discovery.adapters.encoder_spec import TextEncoder
from discovery.adapters.encoders import encode_pictures, load_encoder
from discovery.core.vectors import require_unit_vectors
from discovery.errors import EncoderMismatch, InvalidInput
from discovery.stages.known_encoder import find_projection, projected_spec
from discovery.stages.project import load_projection
from discovery.types import IndexSnapshot
from discovery.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of an upright picture, in pixels from its left upper corner."""

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def parse(cls, text: str) -> Box:
        """From 'x,y,w,h'. Raises InvalidInput: other than four whole numbers, a corner under 0, no area."""
        try:
            x, y, width, height = (int(part) for part in text.split(","))
        except ValueError:
            raise InvalidInput(f"A box is x,y,w,h in pixels of the upright picture, found {text[:64]!r}.") from None
        if min(x, y) < 0 or min(width, height) < 1:
            raise InvalidInput(f"A box has its corner at 0,0 or more, and a width and height of 1 or more; found {text[:64]!r}.")
        return cls(x, y, width, height)


def cut(data: bytes, box: Box) -> bytes:
    """PNG bytes of that part of a picture, at its full size. Raises InvalidInput when it reaches over an edge; Undecodable."""
    image = decode(data, max_pixels=2**62).image
    right, lower = box.x + box.width, box.y + box.height
    if right > image.width or lower > image.height:
        raise InvalidInput(f"The box ends at {right},{lower}, outside of the picture, which has {image.width} x {image.height} px.")
    sink = io.BytesIO()
    image.crop((box.x, box.y, right, lower)).save(sink, "PNG", compress_level=0)
    return sink.getvalue()


def encode_queries(pictures: Mapping[str, bytes], texts: Sequence[str], snapshot: IndexSnapshot, ws: Workspace) -> NDArray[np.float32]:
    """(n, dim) float32 unit vectors, of the pictures (what they are called: their bytes) first, then of the texts.

    Raises EncoderMismatch when the index is of another encoder; InvalidInput: an encoder without a text tower; Undecodable.
    """
    if not pictures and not texts:
        return np.zeros((0, snapshot.dim), np.float32)
    encoder = load_encoder(ws.config.encoder, ws.config.s3)
    spec = projected_spec(encoder.spec, ws)
    if spec.encoder_id != snapshot.encoder_id:
        raise EncoderMismatch(
            f"The index holds {snapshot.encoder_id} vectors, the query would be encoded by {spec.encoder_id}. "
            "Set encoder.name to that of the index, or build an index for this encoder."
        )
    vectors = encode_pictures(encoder, list(pictures.values()))
    if texts:
        if not isinstance(encoder, TextEncoder) or spec.projection:
            what = "a projection of pictures does not fit texts" if isinstance(encoder, TextEncoder) else f"{encoder.spec.model} knows no words"
            raise InvalidInput(f"Search by text: {what}. Use an encoder with a text tower, encoder.name = 'open_clip:…', without a projection.")
        vectors = np.concatenate([vectors, encoder.encode_texts(texts)])
    if spec.projection:
        vectors = load_projection(find_projection(spec.projection, ws), ws)(vectors)
    require_unit_vectors(vectors, [*pictures, *texts], spec.encoder_id)
    return vectors
