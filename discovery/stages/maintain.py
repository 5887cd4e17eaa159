"""Maintain: merge the segments of an index that are many or worn, and certify its recall anew."""

from __future__ import annotations

import numpy as np

from discovery.core.recall import Certificate
from discovery.core.tiers import compaction
from discovery.stages.audit import audit
from discovery.stages.history import current_snapshot
from discovery.stages.index import Content, content_of, merged, opened, shapes_of, succeed
from discovery.types import IndexSnapshot
from discovery.workspace import Workspace


def maintain(ws: Workspace, *, compact: bool = False) -> IndexSnapshot:
    """The current snapshot, after merging what `core.tiers.compaction` names: the tail, full tiers, segments with many removed rows.

    compact: everything, whether it pays or not. Queries go on meanwhile, on the snapshot they hold. When another batch swapped the head the merged
    snapshot is left aside, and the next call merges again. Raises ConfigError when there is no index.
    """
    snapshot = current_snapshot(ws)
    config = ws.config.index
    content = content_of(snapshot, snapshot.encoder_id, snapshot.dim, ws)
    index = opened(content, ws)
    merges = compaction(
        shapes_of(index), exact_rows=config.exact_rows, largest=config.segment_rows, per_tier=config.max_segments, most_dead=config.max_removed,
        everything=compact,
    )  # fmt: skip
    if not merges:
        return snapshot
    ids = [ref.id for ref in content.segments]
    for places in merges:
        now = [number for number, ref in enumerate(content.segments) if ref.id in {ids[place] for place in places}]
        index = opened(content, ws)
        live = sum(shape.live for shape in (shapes_of(index)[number] for number in now))
        ws.report(f"index: merging {len(now)} segments of {live:,} vectors")
        content = merged(content, index, now, np.zeros(0, index.all_ids().dtype), None, ws, graphs=live > config.exact_rows)
    succeed(snapshot, content, "compacted", ws)
    return current_snapshot(ws)


def audit_recall(ws: Workspace) -> tuple[IndexSnapshot, Certificate]:
    """Certify the current snapshot anew, from nothing that was measured before, and what was shown.

    When that gives another ef or bound than the snapshot has (the target may have changed since), a snapshot that says so becomes current. Raises
    ConfigError when there is no index.
    """
    snapshot = current_snapshot(ws)
    content = content_of(snapshot, snapshot.encoder_id, snapshot.dim, ws)
    outcome = audit(opened(content, ws), ws.config.index)
    shown = outcome.certificate
    said = (snapshot.ef_search, snapshot.recall_lower_bound, snapshot.recall_target, snapshot.recall_delta)
    if said != (shown.ef, shown.lower_bound, ws.config.index.recall_target, ws.config.index.recall_delta):
        anew = Content(content.encoder_id, content.dim, content.segments, content.removed, outcome.measured)
        succeed(snapshot, anew, "audited", ws)
        snapshot = current_snapshot(ws)
    return snapshot, shown
