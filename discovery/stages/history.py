"""What was known before a manifest came: the newest index snapshot without it, the same on every re-run."""

from __future__ import annotations

from collections.abc import Sequence

from discovery.config import EncoderConfig
from discovery.errors import ConfigError, CorruptArtifact, UnknownRecord
from discovery.stages.known_encoder import encoder_spec
from discovery.types import EmbeddingSet, IndexSnapshot, Manifest
from discovery.workspace import Workspace


def load_snapshot(snapshot_id: str, ws: Workspace) -> IndexSnapshot:
    """A committed snapshot; CorruptArtifact when the store lacks it."""
    snapshot = ws.store.load_record(IndexSnapshot, snapshot_id)
    if snapshot is None:
        raise CorruptArtifact(f"Index snapshot {snapshot_id} is in the catalog but not in the store. Run `discovery verify`.")
    return snapshot


def head_snapshot(encoder_id: str, ws: Workspace) -> IndexSnapshot | None:
    """The current snapshot of an encoder, or None."""
    head = ws.catalog.snapshot_head(encoder_id)
    return load_snapshot(head, ws) if head else None


def current_snapshot(ws: Workspace) -> IndexSnapshot:
    """The snapshot queries use: of the configured encoder, or the only one there is. ConfigError when there is none."""
    heads = ws.catalog.heads()
    if len(heads) == 1 and ws.config.encoder.identity() == EncoderConfig().identity():
        return load_snapshot(heads[0].snapshot_id, ws)
    if heads:
        encoder_id = encoder_spec(ws).encoder_id
        for head in heads:
            if head.encoder_id == encoder_id:
                return load_snapshot(head.snapshot_id, ws)
        raise ConfigError(
            f"No index for encoder {encoder_id}; there is one for {', '.join(h.encoder_id for h in heads)}. Run `discovery embed` and `discovery index`."
        )
    raise ConfigError(f"There is no index under {ws.config.root} yet. Run `discovery run SOURCE` first.")


def snapshot_before(manifest: Manifest, encoder_id: str, ws: Workspace) -> IndexSnapshot | None:
    """The newest snapshot that does not hold the manifest, walking back from the head; None for the first manifest.

    It does not depend on whether the manifest was indexed meanwhile, so that a stage that runs again makes the same key.
    """
    snapshot = head_snapshot(encoder_id, ws)
    while snapshot is not None and manifest.id in snapshot.manifests:
        snapshot = load_snapshot(snapshot.parent_id, ws) if snapshot.parent_id else None
    return snapshot


def embedding_sets(snapshot: IndexSnapshot | None, ws: Workspace) -> list[EmbeddingSet]:
    """The embedding sets a snapshot covers, in its order."""
    sets = []
    for key in snapshot.embeddings if snapshot else ():
        embedded = ws.store.load_record(EmbeddingSet, key)
        if embedded is None:
            raise CorruptArtifact(f"Embedding set {key} is missing. Run `discovery verify`.")
        sets.append(embedded)
    return sets


def members_of(sets: list[EmbeddingSet], ws: Workspace) -> set[str]:
    """Ids of every asset in these embedding sets."""
    return {asset_id for embedded in sets for asset_id in ws.store.read_table(embedded, "members")["asset_id"].to_pylist()}


def newest_sets(sets: Sequence[EmbeddingSet], ws: Workspace) -> list[EmbeddingSet]:
    """The newest set of each list of sources; its members were at their source when that was last looked at."""
    newest: dict[tuple[str, ...], EmbeddingSet] = {}
    for embedded in sets:
        manifest = ws.store.load_record(Manifest, embedded.manifest_id)
        if manifest is None:
            raise CorruptArtifact(f"Embedding set {embedded.id} has lost its manifest. Run `discovery verify`.")
        newest[manifest.sources] = embedded
    return list(newest.values())


def latest_manifest(ws: Workspace) -> Manifest:
    """The newest manifest; ConfigError when nothing was ingested."""
    records = ws.catalog.records(Manifest.stage, 1)
    if not records or not isinstance(records[0], Manifest):
        raise ConfigError(f"Nothing was ingested into {ws.config.root} yet. Run `discovery ingest SOURCE` first.")
    return records[0]


def get_manifest(manifest_id: str, ws: Workspace) -> Manifest:
    """A manifest by its id or a prefix; UnknownRecord when the id is of something else."""
    record = ws.catalog.find_record(manifest_id)
    if not isinstance(record, Manifest):
        raise UnknownRecord(f"{manifest_id} is a record of stage {record.stage}, not a manifest.")
    return record
