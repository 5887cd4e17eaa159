"""Score: how novel a manifest's new assets are against what was known before, with p-values and a controlled share of errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discovery import schemas
from discovery.adapters.storage import table_to_parquet
from discovery.core.conformal import benjamini_hochberg, calibration_mask, conformal_p_values, shift_test
from discovery.core.knn import exact_knn
from discovery.errors import CorruptArtifact, EncoderMismatch
from discovery.stages.history import embedding_sets, load_snapshot, members_of, snapshot_before
from discovery.stages.novelty_views import NoveltyViews
from discovery.stages.shards import load_vectors
from discovery.stages.versions import find_version, member_ids
from discovery.types import DuplicateReport, EmbeddingSet, IndexSnapshot, Manifest, NoveltyReport
from discovery.workspace import Workspace

NEAREST = 5  # references shown for each candidate
SCALED = 20  # references at least, half of which are held out, that ranks of several scores can be taken from


@dataclass(frozen=True, slots=True)
class _Reference:
    id: str
    snapshot: IndexSnapshot | None
    assets: set[str]


def score(
    manifest: Manifest, embeddings: EmbeddingSet, duplicates: DuplicateReport, ws: Workspace, reference: str = ""
) -> NoveltyReport:
    """Novelty of the manifest's new assets, before they are indexed.

    Candidates are the new assets that keep their duplicate group, so that a picture counts once. reference: a version
    (`name@number`); empty takes the index snapshot before this manifest. Without a reference nothing is called novel, and the
    report says so. Half of a small reference is held out for calibration (`calibration_rows` at most); candidates and held-out rows
    are scored against the other part, which contains neither. When more than half of the batch is unlike the reference, the batch
    is called shifted and no asset is called novel.
    """
    config = ws.config.novelty
    known = _reference(manifest, embeddings, reference, ws)
    inputs = [known.id, embeddings.id, duplicates.id]
    key = ws.key(NoveltyReport, [config], inputs)
    if (found := ws.find(NoveltyReport, key)) is not None:
        return found

    keepers = {row["asset_id"] for row in _rows(duplicates, ws) if row["keeper_id"] == row["asset_id"]}
    before = members_of(embedding_sets(snapshot_before(manifest, embeddings.encoder_id, ws), ws), ws) | known.assets
    ids, vectors = load_vectors([embeddings], ws)
    chosen = [row for row, asset_id in enumerate(ids) if asset_id in keepers and asset_id not in before]
    candidate_ids, candidates = [ids[row] for row in chosen], vectors[chosen]
    outcome = _score(candidate_ids, candidates, known, ws)

    table = pa.Table.from_pylist(outcome.rows, schema=schemas.NOVELTY)
    file = ws.put_file(NoveltyReport, key, "table", table_to_parquet(table), ".parquet", len(table))
    return ws.commit(
        NoveltyReport(
            id=key, inputs=tuple(i for i in inputs if i), created_at=ws.clock(), files=(file,), manifest_id=manifest.id,
            encoder_id=embeddings.encoder_id, reference_id=known.id, score=config.score, candidates=len(candidate_ids),
            references=outcome.references, calibration_rows=outcome.calibration_rows, fdr=config.fdr,
            novel=sum(row["is_novel"] is True for row in outcome.rows), shifted=outcome.shifted, note=outcome.note,
        )
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Outcome:
    rows: list[dict[str, object]]
    references: int
    calibration_rows: int
    shifted: bool
    note: str


def _score(candidate_ids: list[str], candidates: NDArray[np.float32], known: _Reference, ws: Workspace) -> _Outcome:
    config = ws.config.novelty
    reference_ids, references = _reference_vectors(known, ws)
    blank: list[dict[str, object]] = [
        {"asset_id": i, "novelty": None, "p_value": None, "q_value": None, "is_novel": False, "nearest": [], "nearest_distance": []}
        for i in candidate_ids
    ]
    if known.snapshot is None:
        return _Outcome(blank, 0, 0, False, "First run: there is no reference yet, so nothing can be called novel.")
    if not candidate_ids:
        return _Outcome([], len(reference_ids), 0, False, "No new assets: nothing to score.")
    if len(reference_ids) <= max(config.k, SCALED * (config.score == "combined")):
        return _Outcome(
            blank, len(reference_ids), 0, False, f"The reference has {len(reference_ids)} assets, too few to compare with."
        )

    rows_held_out = min(config.calibration_rows, len(reference_ids) // 2)
    held_out = calibration_mask(reference_ids, rows_held_out, config.salt)
    proper, proper_ids = references[~held_out], [i for i, out in zip(reference_ids, held_out, strict=True) if not out]
    views = NoveltyViews(proper, proper_ids, config)
    novelty = views.novelty(candidates, candidate_ids)
    nearest, nearest_distance = exact_knn(candidates, references, NEAREST, query_ids=candidate_ids, reference_ids=reference_ids)

    p: NDArray[np.float64] | None = None
    q = np.ones(len(candidate_ids))
    shifted, note = False, ""
    if rows_held_out < config.min_calibration_rows:
        note = f"Only {rows_held_out} calibration rows: ranked, but not called novel (novelty.min_calibration_rows)."
    else:
        held_out_ids = [i for i, out in zip(reference_ids, held_out, strict=True) if out]
        p = conformal_p_values(views.novelty(references[held_out], held_out_ids), novelty)
        q = benjamini_hochberg(p)
        shift = shift_test(p)
        shifted = shift.is_shifted
        if shifted:
            note = (
                f"Shifted batch: at most {shift.null_fraction_upper:.0%} of it looks like the reference (95 % confidence), so single "
                "discoveries mean little. Compare the sources, or take this batch as a new reference."
            )
    called = (q <= config.fdr) & (p is not None) & (not shifted)
    if p is not None and not shifted and not called.any():
        note = f"No discoveries at q = {config.fdr:g}; the ranked list is kept."
    rows: list[dict[str, object]] = [
        {
            "asset_id": asset_id,
            "novelty": float(novelty[row]),
            "p_value": None if p is None else float(p[row]),
            "q_value": None if p is None else float(q[row]),
            "is_novel": bool(called[row]),
            "nearest": [reference_ids[int(i)] for i in nearest[row]],
            "nearest_distance": [float(d) for d in nearest_distance[row]],
        }
        for row, asset_id in enumerate(candidate_ids)
    ]
    return _Outcome(rows, len(reference_ids), rows_held_out if p is not None else 0, shifted, note)


def top_novel(report: NoveltyReport, ws: Workspace, limit: int = 10) -> list[dict[str, object]]:
    """The most novel candidates, most novel first, ties by id; empty when there was no reference."""
    rows = [row for row in ws.store.read_table(report).to_pylist() if row["novelty"] is not None]
    return sorted(rows, key=lambda row: (-row["novelty"], row["asset_id"]))[:limit]


def _rows(report: DuplicateReport, ws: Workspace) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = ws.store.read_table(report, columns=["asset_id", "keeper_id"]).to_pylist()
    return rows


def _reference(manifest: Manifest, embeddings: EmbeddingSet, reference: str, ws: Workspace) -> _Reference:
    if reference:
        version = find_version(reference, ws)
        if version.encoder_id != embeddings.encoder_id:
            raise EncoderMismatch(
                f"{reference} is of encoder {version.encoder_id}, the candidates were embedded by {embeddings.encoder_id}. "
                "Set encoder.name to that of the version, or take a version of this encoder as reference."
            )
        return _Reference(version.id, load_snapshot(version.snapshot_id, ws), set(member_ids(version, ws)))
    before = snapshot_before(manifest, embeddings.encoder_id, ws)
    if before is None:
        return _Reference("", None, set())
    report = ws.store.load_record(DuplicateReport, before.duplicates_id)
    if report is None:
        raise CorruptArtifact(f"Duplicate report {before.duplicates_id} is missing. Run `discovery verify`.")
    return _Reference(before.id, before, {row["asset_id"] for row in _rows(report, ws) if row["keeper_id"] == row["asset_id"]})


def _reference_vectors(known: _Reference, ws: Workspace) -> tuple[list[str], NDArray[np.float32]]:
    if known.snapshot is None:
        return [], np.zeros((0, 0), np.float32)
    ids, vectors = load_vectors(embedding_sets(known.snapshot, ws), ws)
    rows = [row for row, asset_id in enumerate(ids) if asset_id in known.assets]
    return [ids[row] for row in rows], vectors[rows]
