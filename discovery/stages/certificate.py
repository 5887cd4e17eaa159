"""The certificate of a version: how far its splits are apart, and that nothing of it is in the versions that it must not leak into."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from discovery import schemas
from discovery.adapters.calibrations import packaged_calibration
from discovery.core.draws import draw
from discovery.core.knn import exact_knn
from discovery.core.lattice import cosine_distance, on_lattice
from discovery.stages.shards import vectors_for
from discovery.types import DatasetVersion, DuplicateCalibration, DuplicateReport, EmbeddingSet
from discovery.workspace import Workspace

ALL_PAIRS = 4 * 10**9  # of two members that are compared; of more, members are drawn


def across_splits(ids: NDArray[np.bytes_], splits: list[str], sets: list[EmbeddingSet], ws: Workspace) -> dict[str, Any] | None:
    """The two members most alike in different splits; None where there is one split.

    ids: (n,) members, ascending. `asked` of `members` were compared with all members of other splits: of all, or of a draw when there are more than
    4e9 pairs. So `recall` of the claim is 1, or with a confidence of 95 % no more than the share `beyond` of all members has one that is more alike.
    """
    names = np.array(splits, object)
    if len(set(splits)) < 2:
        return None
    rows = on_lattice(vectors_for(sets, ids, ws))
    n = len(ids)
    asked = np.arange(n) if n * n <= ALL_PAIRS else np.sort(draw(ids, max(1, ALL_PAIRS // n), ws.config.collection.salt))
    best: tuple[float, int, int] | None = None
    for split in sorted(set(names[asked].tolist())):
        mine, theirs = asked[names[asked] == split], np.flatnonzero(names != split)
        places, distances = exact_knn(rows[mine], rows, 1, reference_rows=theirs)
        row = int(np.argmin(distances[:, 0]))
        found = (float(distances[row, 0]), int(mine[row]), int(theirs[places[row, 0]]))
        best = min(best, found) if best is not None else found
    assert best is not None
    _, one, other = best
    is_whole = len(asked) == n
    return {
        "largest_similarity": 1.0 - float(cosine_distance(np.asarray(best[0], np.float32))),
        "assets": [ids[one].decode(), ids[other].decode()], "splits": [splits[one], splits[other]],
        "members": n, "asked": len(asked), "recall": 1.0 if is_whole else None, "beyond": 0.0 if is_whole else 1 - 0.05 ** (1 / len(asked)),
    }  # fmt: skip


def duplicate_recall(report: DuplicateReport, ws: Workspace) -> dict[str, Any]:
    """How many copies the duplicate report finds: the recall of what its vectors propose, as its calibration measured it, with its bound."""
    packaged = packaged_calibration(report.encoder_id)
    for record in ws.catalog.records(DuplicateCalibration.stage):
        if isinstance(record, DuplicateCalibration) and record.id == report.calibration:
            return {"report_id": report.id, "calibration_id": record.id, "recall": record.recall, "recall_lower_bound": record.recall_lower_bound}
    if packaged is not None and packaged.id == report.calibration:
        return {"report_id": report.id, "calibration_id": packaged.id, "recall": packaged.recall, "recall_lower_bound": packaged.recall_lower_bound}
    return {"report_id": report.id, "calibration_id": report.calibration, "recall": None, "recall_lower_bound": None}


def leakage(
    members: NDArray[np.bytes_], other: DatasetVersion, report: DuplicateReport, sets: list[EmbeddingSet], ws: Workspace
) -> dict[str, Any]:
    """How many members are in another version too, by the three stages of near-duplicate detection and by chains of copies.

    members: (n,) ascending. same_bytes: the asset itself; same_pixels: another file of the same pixels; verified_copies: the other version has a copy
    that was proposed and verified; chains: linked to it through other copies; each counts those that the one before did not. largest_similarity: of a
    member to a member of the other version, None where these have no vectors of this encoder.
    """
    theirs = schemas.ids_of(ws.store.read_table(other, columns=["asset_id"])["asset_id"])
    table = ws.store.read_table(report, columns=["asset_id", "pixel_keeper", "component_id"])
    known, pixels, component = (schemas.ids_of(table[name]) for name in ("asset_id", "pixel_keeper", "component_id"))
    is_theirs, is_member = np.isin(known, theirs), np.isin(known, members)
    leaks = {"same_bytes": np.isin(members, theirs)}
    leaks["same_pixels"] = np.isin(members, known[is_member & np.isin(pixels, pixels[is_theirs])])
    pairs = ws.store.read_table(report, "pairs", columns=["asset_a", "asset_b"])
    a, b = schemas.ids_of(pairs["asset_a"]), schemas.ids_of(pairs["asset_b"])
    leaks["verified_copies"] = np.isin(members, np.concatenate([a[np.isin(b, theirs)], b[np.isin(a, theirs)]]))
    leaks["chains"] = np.isin(members, known[is_member & np.isin(component, component[is_theirs])])
    seen = np.zeros(len(members), bool)
    counts: dict[str, Any] = {}
    for name, mask in leaks.items():
        counts[name] = int((mask & ~seen).sum())
        seen |= mask
    unknown = int((~np.isin(theirs, known)).sum())
    return {"version_id": other.id, "digest": other.digest, **counts, "leaked": int(seen.sum()), "not_compared": unknown, **_nearest(members, theirs, sets, ws)}


def _nearest(members: NDArray[np.bytes_], theirs: NDArray[np.bytes_], sets: list[EmbeddingSet], ws: Workspace) -> dict[str, Any]:
    held = np.concatenate([schemas.ids_of(ws.store.read_table(one, "members")["asset_id"]) for one in sets]) if sets else theirs[:0]
    theirs = theirs[np.isin(theirs, held)]
    if not len(theirs) or not len(members):
        return {"largest_similarity": None, "assets": [], "asked": 0}
    asked = members if len(members) * len(theirs) <= ALL_PAIRS else members[np.sort(draw(members, max(1, ALL_PAIRS // len(theirs)), ws.config.collection.salt))]
    places, distances = exact_knn(on_lattice(vectors_for(sets, asked, ws)), on_lattice(vectors_for(sets, theirs, ws)), 1)
    row = int(np.argmin(distances[:, 0]))
    return {
        "largest_similarity": 1.0 - float(cosine_distance(distances[row, :1])[0]), "assets": [asked[row].decode(), theirs[places[row, 0]].decode()],
        "asked": len(asked),
    }  # fmt: skip


