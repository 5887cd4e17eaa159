"""The spec of the configured encoder without loading it, once it was loaded before: a run with nothing to embed stays light."""

from __future__ import annotations

import dataclasses
import json

from discovery.adapters.encoders import EncoderSpec, load_encoder, spec_key
from discovery.errors import EncoderMismatch, EncoderNotFound, UnknownRecord
from discovery.types import FittedProjection
from discovery.workspace import Workspace


def encoder_spec(ws: Workspace) -> EncoderSpec:
    """The configured encoder's spec, with its projection. Raises EncoderNotFound, EncoderMismatch, UnknownRecord."""
    return projected_spec(base_spec(ws), ws)


def projected_spec(spec: EncoderSpec, ws: Workspace) -> EncoderSpec:
    """A model's spec, with the configured projection. Raises EncoderMismatch when it was fitted on another model's vectors."""
    if not ws.config.encoder.projection:
        return spec
    projection = find_projection(ws.config.encoder.projection, ws)
    if projection.encoder_id != spec.encoder_id:
        raise EncoderMismatch(
            f"encoder.projection {projection.id[:12]}… was fitted on {projection.encoder_id}, the encoder is {spec.encoder_id}. "
            "Fit one for this encoder: discovery fit-projection."
        )
    return dataclasses.replace(spec, dim=projection.dim, projection=projection.id)


def find_projection(text: str, ws: Workspace) -> FittedProjection:
    """A projection by its id or a prefix. Raises UnknownRecord."""
    record = ws.catalog.find_record(text)
    if not isinstance(record, FittedProjection):
        raise UnknownRecord(f"encoder.projection = {text!r} is a record of stage {record.stage}, not a projection.")
    return record


def base_spec(ws: Workspace) -> EncoderSpec:
    """The configured model's spec, without a projection. It is remembered under the root by all that decides it: settings, weights file and versions.

    Raises EncoderNotFound.
    """
    config = ws.config
    key = spec_key(config.encoder)
    path = f"encoders/{key}.json"
    if key:
        try:
            return EncoderSpec.from_dict(json.loads(ws.store.files.read(path)))
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            pass  # not remembered yet, or by another version
    spec = load_encoder(config.encoder, config.s3).spec
    if key and spec_key(config.encoder) != key:
        raise EncoderNotFound(f"The weights of {config.encoder.name} changed while they were loaded. Run again.")
    if key:
        ws.store.files.create(path, json.dumps(spec.to_dict()).encode())
    return spec
