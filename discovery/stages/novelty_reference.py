"""The reference of a novelty report: which known assets candidates are compared with, after what people marked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from discovery.addressing import content_id
from discovery.errors import EncoderMismatch
from discovery.stages.asset_sets import FORM, AssetSet, find_set
from discovery.stages.history import snapshot_before
from discovery.stages.marks import EXPECTED, JUNK, NOVEL, ids_marked, standing_marks
from discovery.stages.open_index import MemorySegment, OpenIndex, open_index
from discovery.types import IndexSnapshot, Manifest
from discovery.workspace import Workspace

PREVIOUS = "previous"
BEFORE = "everything known before this run"


@dataclass(frozen=True, slots=True)
class Reference:
    """rows: (r,) int64, ascending, of `index`. is_fixed: it was named, so that others will be compared with it too.

    inputs: the records it comes from, the marks that changed it among them. id: names it without the marks; marks: id of their effect, empty for none.
    """

    id: str
    label: str
    inputs: tuple[str, ...]
    marks: str
    snapshot: IndexSnapshot
    is_fixed: bool
    index: OpenIndex
    rows: NDArray[np.int64]


def reference_of(text: str, manifest: Manifest, encoder_id: str, ws: Workspace) -> Reference | None:
    """What a manifest's candidates are compared with; None on the first run, when nothing is known.

    text: empty or `previous` for all that was indexed before the manifest, else a set as `asset_sets.find_set` takes it; sources, batches and
    expressions are looked up among what was indexed before. Assets marked `novel` or `junk` are left out, those marked `expected` are in
    when they were indexed before. Raises EncoderMismatch for a version of another encoder, and what `find_set` raises.
    """
    before = snapshot_before(manifest, encoder_id, ws)
    is_fixed = text.strip() not in ("", PREVIOUS)
    if before is None and (not is_fixed or FORM.fullmatch(text.strip()) or text.strip() == "all"):
        return None
    found = find_set(text if is_fixed else "all", ws, before)
    if found.snapshot.encoder_id != encoder_id:
        raise EncoderMismatch(
            f"{text} is of encoder {found.snapshot.encoder_id}, the candidates were embedded by {encoder_id}. "
            "Set encoder.name to that of the version, or take a version of this encoder as reference."
        )
    label = found.label if is_fixed else BEFORE
    return _after_marks(found, label, is_fixed and text.strip() != "all", before, ws)


def _after_marks(found: AssetSet, label: str, is_fixed: bool, before: IndexSnapshot | None, ws: Workspace) -> Reference:
    index = open_index(found.snapshot, ws)
    marks = standing_marks(ws.catalog)
    out = np.intersect1d(ids_marked(marks, NOVEL, JUNK), index.ids(found.rows))
    rows = np.setdiff1d(found.rows, index.find(out)) if len(out) else found.rows
    extra = np.setdiff1d(ids_marked(marks, EXPECTED), index.ids(rows))
    if len(extra) and before is not None:
        known = open_index(before, ws)
        places = known.find(extra)
        extra, places = extra[places >= 0], places[places >= 0]
        extra, places = extra[known.alive[places]], places[known.alive[places]]
        own = index.find(extra)
        rows = np.union1d(rows, own[own >= 0])
        if (own < 0).any():  # a version's own index lacks what came later
            added = MemorySegment(extra[own < 0], known.vectors(places[own < 0]))
            start = index.rows
            index = OpenIndex([*index.segments, added], index.ids(np.flatnonzero(~index.alive)), index.dim, index.ef, index.config)
            rows = np.concatenate([rows, np.arange(start, index.rows)])
    else:
        extra = extra[:0]
    used = [marks[one.decode()] for one in (*out, *extra)]
    effect = content_id([[one.asset_id, one.mark] for one in used]) if used else ""
    inputs = (*found.inputs, *sorted(one.id for one in used))
    return Reference(found.id, label, inputs, effect, found.snapshot, is_fixed, index, rows)
