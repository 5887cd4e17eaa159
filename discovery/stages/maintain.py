"""Maintain: merge the segments of an index when there are many, and measure its recall again."""

from __future__ import annotations

import numpy as np

from discovery.stages.history import current_snapshot
from discovery.stages.index import Audit, audit, build_segment, commit_snapshot, open_segment
from discovery.types import IndexSnapshot, SegmentRef
from discovery.workspace import Workspace


def maintain(ws: Workspace, *, compact: bool = False) -> IndexSnapshot:
    """The current snapshot, merged into one segment when it has more than index.max_segments (or `compact` asks for it).

    When another batch swapped the head meanwhile the merged snapshot is left aside, and the next call merges again. Raises
    ConfigError when there is no index.
    """
    snapshot = current_snapshot(ws)
    if len(snapshot.segments) < 2 or (len(snapshot.segments) <= ws.config.index.max_segments and not compact):
        return snapshot
    key = ws.key(IndexSnapshot, [ws.config.index], [snapshot.id], compacted=True)
    merged = ws.find(IndexSnapshot, key)
    if merged is None:
        opened = [open_segment(ref, snapshot.encoder_id, ws) for ref in snapshot.segments]
        ids = [asset_id for segment in opened for asset_id in segment.ids]
        vectors = np.concatenate([segment.vectors for segment in opened])
        order = sorted(range(len(ids)), key=ids.__getitem__)
        segment = build_segment([ids[row] for row in order], vectors[order], snapshot.encoder_id, ws)
        merged = commit_snapshot(
            key, [SegmentRef(segment.id, segment.elements)], snapshot.encoder_id, snapshot.dim, snapshot,
            manifests=snapshot.manifests, embeddings=snapshot.embeddings, duplicates_id=snapshot.duplicates_id, ws=ws,
        )  # fmt: skip
    ws.catalog.swap_head(snapshot.encoder_id, merged.id, snapshot.id)
    return current_snapshot(ws)


def audit_recall(ws: Workspace) -> tuple[IndexSnapshot, Audit]:
    """The current snapshot and its recall measured now. Raises ConfigError when there is no index."""
    snapshot = current_snapshot(ws)
    return snapshot, audit([open_segment(ref, snapshot.encoder_id, ws) for ref in snapshot.segments], ws.config.index)
