"""What it would cost to embed all that is indexed by the configured encoder: told before anything is done, from what was measured."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from discovery.adapters.encoders import load_encoder
from discovery.adapters.graph_file import segment_bytes
from discovery.stages.embed_shard import encode_assets
from discovery.stages.history import embedding_sets, load_snapshot, members_of
from discovery.stages.known_encoder import base_spec, encoder_spec
from discovery.stages.shards import holders, read_asset
from discovery.types import EmbeddingShard, Manifest
from discovery.workspace import Workspace

SAMPLE = 48  # pictures that are embedded to tell the rate, where no shard of this encoder tells it
WARM_UP = 16
VECTOR_BYTES = {"float32": 4, "float16": 2}


@dataclass(frozen=True, slots=True)
class EncoderChange:
    """What an encoder lacks over all that is indexed by any encoder.

    missing: of `assets`, those without a vector by this encoder; bytes_to_read: of theirs. images_per_s: of one worker, 0 when nothing
    is missing; rate_from says how it was found. worker_s: seconds of one worker; workers: how many there are; wall_s: with all of them.
    vector_bytes, index_bytes: on the storage, before compression. current: encoders that have an index now.
    """

    encoder_id: str
    dim: int
    has_index: bool
    current: tuple[str, ...]
    assets: int
    missing: int
    bytes_to_read: int
    images_per_s: float
    rate_from: str
    worker_s: float
    workers: int
    wall_s: float
    vector_bytes: int
    index_bytes: int

    @property
    def sentence(self) -> str:
        """For a person: what it would take, or that nothing is to be done."""
        if not self.missing:
            return f"{self.encoder_id} has a vector of each of {self.assets:,} indexed assets: nothing to embed."
        return (
            f"{self.encoder_id} lacks vectors of {self.missing:,} of {self.assets:,} indexed assets. Embedding them reads {_size(self.bytes_to_read)} and takes "
            f"about {_duration(self.wall_s)} on {self.workers} workers ({self.images_per_s:.1f} images/s each, {self.rate_from}); vectors take "
            f"{_size(self.vector_bytes)}, the index {_size(self.index_bytes)}. What other encoders made stays as it is."
        )


def encoder_change(ws: Workspace) -> EncoderChange:
    """The cost for the configured encoder; embeds nothing that is kept. Raises EncoderNotFound, CorruptArtifact.

    The rate is that of the encoder's own shards; without any, a sample of pictures is embedded here, and a worker elsewhere may differ.
    """
    spec, model = encoder_spec(ws), base_spec(ws)
    heads = ws.catalog.heads()
    members: set[str] = set()
    manifests: set[str] = set()
    for head in heads:
        snapshot = load_snapshot(head.snapshot_id, ws)
        members |= members_of(embedding_sets(snapshot, ws), ws)
        manifests |= set(snapshot.manifests)
    held = holders(EmbeddingShard, model.encoder_id, ws)
    missing = members - set(held)
    uris, sizes = _listed(manifests, missing, ws)
    rate, rate_from = _rate(held, sorted(missing), uris, ws)
    workers = ws.width(len(missing))
    worker_s = len(missing) / rate if rate else 0.0
    return EncoderChange(
        encoder_id=spec.encoder_id, dim=spec.dim, has_index=any(head.encoder_id == spec.encoder_id for head in heads),
        current=tuple(sorted(head.encoder_id for head in heads)), assets=len(members), missing=len(missing),
        bytes_to_read=sum(sizes.values()), images_per_s=round(rate, 2), rate_from=rate_from, worker_s=round(worker_s, 1), workers=workers,
        wall_s=round(worker_s / workers, 1), vector_bytes=len(missing) * model.dim * VECTOR_BYTES[ws.config.encoder.stored],
        index_bytes=segment_bytes(len(members), spec.dim, ws.config.index.m),
    )  # fmt: skip


def _listed(manifests: set[str], wanted: set[str], ws: Workspace) -> tuple[dict[str, str], dict[str, int]]:
    """Of each wanted asset one source URI and its size in bytes."""
    uris: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for manifest_id in sorted(manifests) if wanted else ():
        manifest = ws.catalog.get_record(manifest_id)
        if isinstance(manifest, Manifest):
            table = ws.store.read_table(manifest, columns=["asset_id", "source_uri", "size_bytes"])
            for row in table.to_pylist():
                if row["asset_id"] in wanted and row["asset_id"] not in uris:
                    uris[row["asset_id"]], sizes[row["asset_id"]] = row["source_uri"], row["size_bytes"] or 0
    return uris, sizes


def _rate(held: dict[str, EmbeddingShard], missing: list[str], uris: dict[str, str], ws: Workspace) -> tuple[float, str]:
    """Images a second of one worker, and from where that is known; 0 when nothing is missing."""
    if not missing:
        return 0.0, ""
    shards = {shard.id: shard for shard in held.values()}.values()
    seconds = sum(shard.total_s for shard in shards)
    if seconds > 0:
        return sum(shard.assets for shard in shards) / seconds, "as its shards so far took"
    encoder = load_encoder(ws.config.encoder, ws.config.s3)
    drawn = [missing[row] for row in np.linspace(0, len(missing) - 1, min(SAMPLE, len(missing)), dtype=int)]  # ids are hashes: as good as random

    def read(row: int) -> bytes:
        return read_asset(ws.store, drawn[row], uris[drawn[row]])

    encode_assets(encoder, read, min(WARM_UP, len(drawn)), ws.config.dask)
    started = time.perf_counter()
    encode_assets(encoder, read, len(drawn), ws.config.dask)
    return len(drawn) / (time.perf_counter() - started), f"measured here on {len(drawn)} of them"


def _size(size_bytes: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:,.0f} {unit}" if unit in ("bytes", "KiB") else f"{size_bytes:,.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:,.1f} TiB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
