"""The spec of the configured encoder without loading it, once it was loaded before: a run with nothing to embed stays light."""

from __future__ import annotations

import json

from discovery.adapters.encoders import EncoderSpec, load_encoder, spec_key
from discovery.errors import EncoderNotFound
from discovery.workspace import Workspace


def encoder_spec(ws: Workspace) -> EncoderSpec:
    """The configured encoder's spec. It is remembered under the root by all that decides it: settings, weights file and versions.

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
