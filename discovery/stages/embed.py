"""Embed: one vector for every asset that passed its quality report, computed once for an encoder, ever."""

from __future__ import annotations

import pyarrow as pa

from discovery.adapters.storage import table_to_parquet
from discovery.stages.check import accepted_assets
from discovery.stages.embed_shard import embed_shard
from discovery.stages.known_encoder import base_spec, encoder_spec, find_projection
from discovery.stages.project import project_shards
from discovery.stages.regions import describe_regions
from discovery.stages.shards import fill_missing, sources_of
from discovery.types import EmbeddingSet, EmbeddingShard, Manifest, QualityReport
from discovery.workspace import Workspace


def embed(manifest: Manifest, report: QualityReport, ws: Workspace) -> EmbeddingSet:
    """Vectors of the manifest's accepted assets by the configured encoder; those that exist are reused.

    With a projection, the model's own vectors are kept too, and those of pictures that the model has seen are projected from them.

    Raises EncoderNotFound, SchedulerUnreachable, CorruptArtifact. Tally: embed_shard.computed, embed_shard.reused, in assets.
    """
    spec, model = encoder_spec(ws), base_spec(ws)
    encoder_id = spec.encoder_id
    key = ws.key(EmbeddingSet, [], [manifest.id, report.id], encoder_id=encoder_id)
    if (found := ws.find(EmbeddingSet, key)) is not None:
        ws.tally["embed_shard.reused"] += found.assets
        return found
    uris = sources_of(manifest, ws)
    needed = {asset_id: uris[asset_id] for asset_id in accepted_assets(report, ws)}
    shards = fill_missing(EmbeddingShard, model.encoder_id, needed, embed_shard, ws)
    if line := where_time_went(ws):
        ws.report(f"embed: {line}")
    if ws.config.regions.at_embed:
        describe_regions(needed, ws)
    if spec.projection:
        shards = project_shards(shards, find_projection(spec.projection, ws), encoder_id, ws)
    members = pa.table({"asset_id": pa.array(sorted(needed), pa.string())})
    file = ws.put_file(EmbeddingSet, key, "members", table_to_parquet(members), ".parquet", len(members))
    return ws.commit(
        EmbeddingSet(
            id=key, inputs=(manifest.id, report.id, *(shard.id for shard in shards)), created_at=ws.clock(), files=(file,),
            manifest_id=manifest.id, report_id=report.id, encoder_id=encoder_id, dim=spec.dim, assets=len(needed),
            shards=tuple(shard.id for shard in shards),
        )
    )  # fmt: skip


def where_time_went(ws: Workspace) -> str:
    """One sentence about the workers' seconds since the workspace was opened, the largest share first; empty when nothing was computed.

    Encoding, waiting for pictures and writing add up to nearly all of a worker's time; reading and decoding run beside them.
    """
    total = ws.tally["embed_shard.total_ms"]
    if not total:
        return ""
    words = {"encode": "encoding", "wait": "waiting for pictures", "write": "writing"}
    shares = sorted(((ws.tally[f"embed_shard.{name}_ms"] / total, word) for name, word in words.items()), reverse=True)
    parts = ", ".join(f"{word} {share:.0%}" for share, word in shares)
    if shares[0][1] == "waiting for pictures":
        slow = "reading" if ws.tally["embed_shard.read_ms"] > ws.tally["embed_shard.decode_ms"] else "decoding"
        parts += f"; {slow} is the bottleneck"
    return f"of the workers' time, {parts}"
