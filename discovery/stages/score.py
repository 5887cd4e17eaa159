"""Score: how novel a manifest's new assets are against what was known before, with p-values and a controlled share of errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discovery import schemas
from discovery.adapters.storage import table_to_parquet
from discovery.config import NoveltyConfig
from discovery.core.conformal import (
    ShiftTest,
    benjamini_hochberg,
    calibration_size,
    conditional_p_values,
    conformal_p_values,
    contamination,
    least_discoveries,
    shift_test,
)
from discovery.core.draws import ID_DIGITS, draw
from discovery.stages.columns import columns_of
from discovery.stages.history import embedding_sets, snapshot_before
from discovery.stages.novelty_pool import look_together
from discovery.stages.novelty_reference import Reference, reference_of
from discovery.stages.novelty_themes import Themes, find_themes
from discovery.stages.novelty_views import NEAREST, ROWS_AT_ONCE, Looked, NoveltyViews
from discovery.stages.novelty_words import moved_words, note_of
from discovery.stages.shards import vector_blocks
from discovery.types import DuplicateReport, EmbeddingSet, Manifest, NoveltyReport
from discovery.workspace import Workspace

SCALED = 20  # references at least, half of which are held out, that ranks of several scores can be taken from
EXACT_PAIRS = 10**9  # up to so many pairs of vectors are compared by `auto`: seconds, and no graph need be loaded
SHOWN_CALIBRATION = 50
COMPARED = 5000  # pictures of each side, whose measures tell what moved
Ids = NDArray[np.bytes_]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Candidates:
    """New assets that keep their duplicate group, ascending, and how many of the batch the reference has already."""

    ids: Ids
    known: int
    embeddings: EmbeddingSet


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found; arrays are (n,) over the candidates and empty where there is nothing to say. calibration: most novel first.

    score: the view that novelty is by. is_in_bursts: `adaptive` was wanted, and would not have held.
    """

    score: str
    looked: Looked | None = None
    nearest: Ids = field(default_factory=lambda: np.zeros((0, 0), f"S{ID_DIGITS}"))
    calibration_rows: int = 0
    p: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    percentile: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    rare_q: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    shift: ShiftTest = field(default_factory=lambda: ShiftTest(False, 1.0, 1.0, 1.0))
    calibration: tuple[tuple[bytes, float, bool], ...] = ()
    far_out: int = 0
    hidden: int = 0
    least_p: float = 1.0
    is_in_bursts: bool = False


def score(
    manifest: Manifest, embeddings: EmbeddingSet, duplicates: DuplicateReport, ws: Workspace, reference: str = ""
) -> NoveltyReport:
    """Novelty of the manifest's new assets, before they are indexed.

    Candidates are the new assets that keep their duplicate group, so that a picture counts once; those that the reference has are none.
    reference: a set (`asset_sets.find_set`), `previous` for the index snapshot before this manifest; empty for what
    novelty.reference says. Without a reference nothing is
    called novel, and the report says so. Some of the reference is held out for calibration (`core.conformal.calibration_size`); candidates and
    held-out rows are looked up in the other part alone. When the batch moved as a whole it is called shifted, with what its pictures are
    other in, and no asset is called novel. Memory: a block of candidates, their results, and what the index maps.
    """
    config = ws.config.novelty
    known = reference_of(reference or config.reference, manifest, embeddings.encoder_id, ws)
    inputs = [*(known.inputs if known else ()), embeddings.id, duplicates.id]
    identity = {"reference": known.id, "marks": known.marks} if known else {}
    key = ws.key(NoveltyReport, [config], [embeddings.id, duplicates.id], **identity)
    if (found := ws.find(NoveltyReport, key)) is not None:
        return found

    candidates = _candidates(manifest, embeddings, duplicates, known, ws)
    lasting = "set" if known and known.is_fixed and config.score != "adaptive" else "batch"
    guarantee = {"auto": lasting}.get(config.guarantee, config.guarantee)
    outcome = _outcome(candidates, known, guarantee, ws)
    n = len(candidates.ids)
    q = benjamini_hochberg(outcome.p)
    is_novel = (q <= config.fdr) & (not outcome.shift.is_shifted) if len(outcome.p) else np.zeros(n, bool)
    is_rare = (outcome.rare_q <= config.fdr) & (not outcome.shift.is_shifted) & ~is_novel if len(outcome.rare_q) else np.zeros(n, bool)
    found_themes = find_themes(candidates.ids, is_novel, manifest, embeddings, ws)
    moved = _moved(candidates, known, ws) if known and outcome.shift.is_shifted else []
    least = least_discoveries(n, outcome.least_p, config.fdr) if len(outcome.p) else 0

    table = _table(candidates.ids, outcome, q, is_novel, is_rare, found_themes)
    rows = pa.Table.from_pylist([{"asset_id": i.decode(), "novelty": s, "is_far_out": far} for i, s, far in outcome.calibration], schemas.CALIBRATION)
    files = (
        ws.put_file(NoveltyReport, key, "table", table_to_parquet(table), ".parquet", n),
        ws.put_file(NoveltyReport, key, "themes", table_to_parquet(found_themes.table), ".parquet", len(found_themes.table)),
        ws.put_file(NoveltyReport, key, "calibration", table_to_parquet(rows), ".parquet", len(rows)),
    )
    report = NoveltyReport(
        id=key, inputs=tuple(dict.fromkeys(inputs)), created_at=ws.clock(), files=files, manifest_id=manifest.id,
        encoder_id=embeddings.encoder_id, reference_id=known.id if known else "", reference=known.label if known else "", score=outcome.score,
        guarantee=guarantee, candidates=n, known=candidates.known, references=len(known.rows) if known else 0,
        calibration_rows=outcome.calibration_rows if len(outcome.p) else 0, fdr=config.fdr, least_p=outcome.least_p, least_discoveries=least,
        novel=int(is_novel.sum()), rare=int(is_rare.sum()), themes=len(found_themes.table), shifted=outcome.shift.is_shifted,
        null_fraction=outcome.shift.null_fraction, bulk_p_value=outcome.shift.bulk_p_value, moved=tuple(moved), far_out=outcome.far_out,
        hidden=outcome.hidden, note="",
    )  # fmt: skip
    return ws.commit(note_of(report, outcome.calibration_rows, outcome.shift, config, is_in_bursts=outcome.is_in_bursts))


def _candidates(
    manifest: Manifest, embeddings: EmbeddingSet, duplicates: DuplicateReport, known: Reference | None, ws: Workspace
) -> Candidates:
    """The manifest's keepers that were not embedded before it and are not in the reference."""
    pairs = ws.store.read_table(duplicates, columns=["asset_id", "keeper_id"])
    asset, keeper = (schemas.ids_of(pairs[name]) for name in ("asset_id", "keeper_id"))
    members = np.sort(schemas.ids_of(ws.store.read_table(embeddings, "members")["asset_id"]))
    before = [schemas.ids_of(ws.store.read_table(one, "members")["asset_id"]) for one in embedding_sets(snapshot_before(manifest, embeddings.encoder_id, ws), ws)]
    new = np.setdiff1d(members, np.concatenate(before)) if before else members
    found = np.intersect1d(new, asset[asset == keeper])
    if known is None:
        return Candidates(found, 0, embeddings)
    theirs = known.index.ids(known.rows)
    fresh = np.setdiff1d(found, theirs)
    return Candidates(fresh, len(found) - len(fresh), embeddings)


def _outcome(candidates: Candidates, known: Reference | None, guarantee: str, ws: Workspace) -> Outcome:
    config = ws.config.novelty
    n = len(candidates.ids)
    is_adaptive = config.score == "adaptive" or (config.score == "auto" and guarantee == "batch")
    view = "knn" if config.score in ("auto", "adaptive") else config.score
    if known is None or n == 0 or len(known.rows) <= max(config.k, SCALED * (config.score == "combined")):
        return Outcome(view)
    c = calibration_size(len(known.rows), config.calibration_rows)
    held_out = np.sort(known.rows[draw(known.index.ids(known.rows), c, config.salt)])
    exact = config.search == "exact" or (config.search == "auto" and (n + c) * len(known.rows) <= EXACT_PAIRS)
    views = NoveltyViews(known.index, known.rows, held_out, config, exact=exact)
    looked = _look(candidates, views, config, ws)
    nearest = known.index.ids(looked.nearest)
    if c < config.min_calibration_rows:
        return Outcome(view, looked, nearest, c)
    usual = views.look_at_rows(held_out, density=config.rare)
    shift = shift_test(usual.novelty, looked.novelty)
    is_in_bursts = False
    if is_adaptive and not shift.is_shifted:
        beside, usual_beside = _together(candidates, looked, known, held_out, usual, config, ws)
        is_in_bursts = shift_test(usual_beside, beside).is_shifted
        if not is_in_bursts:
            view, looked, usual = "adaptive", replace(looked, novelty=beside), replace(usual, novelty=usual_beside)
    marginal = conformal_p_values(usual.novelty, looked.novelty)
    is_set = guarantee == "set"

    def guaranteed(p: NDArray[np.float64]) -> NDArray[np.float64]:
        return conditional_p_values(p, c, config.guarantee_delta) if is_set else p

    doubt = contamination(usual.novelty, looked.novelty, config.fdr)
    order = np.argsort(-usual.novelty, kind="stable")[:SHOWN_CALIBRATION]
    names = known.index.ids(held_out[order])
    rare_q = benjamini_hochberg(guaranteed(conformal_p_values(usual.density, looked.density))) if config.rare else np.zeros(0)
    return Outcome(
        view, looked, nearest, c, guaranteed(marginal), 100.0 * (1.0 - (marginal * (c + 1) - 1.0) / c), rare_q, shift,
        tuple((name, float(usual.novelty[row]), row in set(doubt.rows.tolist())) for name, row in zip(names, order.tolist(), strict=True)),
        len(doubt.rows), doubt.hidden, float(guaranteed(np.array([1.0 / (c + 1)]))[0]), is_in_bursts,
    )  # fmt: skip


def _together(
    candidates: Candidates, looked: Looked, known: Reference, held_out: Rows, usual: Looked, config: NoveltyConfig, ws: Workspace
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Adaptive novelty of the candidates, and of the held-out rows."""
    n = len(candidates.ids)

    def blocks(places: Rows) -> Iterator[tuple[Rows, NDArray[np.float32]]]:
        mine, theirs = places[places < n], places[places >= n]
        if len(mine):
            for part, vectors in vector_blocks([candidates.embeddings], candidates.ids[mine], ws, ROWS_AT_ONCE):
                yield mine[part], vectors
        for start in range(0, len(theirs), ROWS_AT_ONCE):
            part = theirs[start : start + ROWS_AT_ONCE]
            yield part, known.index.vectors(held_out[part - n])

    pooled = Looked(*(np.concatenate([getattr(looked, name), getattr(usual, name)]) for name in Looked.__slots__))
    found = look_together(np.concatenate([candidates.ids, known.index.ids(held_out)]), pooled, blocks, config.salt + "-companions")
    return found[:n], found[n:]


def _look(candidates: Candidates, views: NoveltyViews, config: NoveltyConfig, ws: Workspace) -> Looked:
    """All candidates beside the reference, a block at a time."""
    n = len(candidates.ids)
    novelty, density = np.empty(n, np.float32), np.empty(n if config.rare else 0, np.float32)
    nearest, distance = np.empty((n, NEAREST), np.int64), np.empty((n, NEAREST), np.float32)
    closest, done = np.empty(n, np.float32), 0
    for places, part in views.look_at_blocks(vector_blocks([candidates.embeddings], candidates.ids, ws, ROWS_AT_ONCE), density=config.rare):
        novelty[places], closest[places], nearest[places], distance[places] = part.novelty, part.closest, part.nearest, part.nearest_distance
        if config.rare:
            density[places] = part.density
        done += len(places)
        ws.report(f"score: {done:,} of {n:,} candidates")
    return Looked(novelty, density, closest, nearest, distance)


def _moved(candidates: Candidates, known: Reference, ws: Workspace) -> list[str]:
    """What the pictures of a shifted batch are other in than those of the reference, in words."""
    salt = ws.config.novelty.salt + "-moved"
    reference = known.index.ids(known.rows)
    sets = embedding_sets(known.snapshot, ws)
    mine = columns_of(candidates.ids[draw(candidates.ids, COMPARED, salt)], [candidates.embeddings], ws)
    return moved_words(columns_of(reference[draw(reference, COMPARED, salt)], sets, ws), mine)


def _table(
    ids: Ids, outcome: Outcome, q: NDArray[np.float64], is_novel: NDArray[np.bool_], is_rare: NDArray[np.bool_], themes: Themes
) -> pa.Table:
    """One row a candidate, in the order of ids."""
    n, looked = len(ids), outcome.looked

    def numbers(values: NDArray[np.floating], kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind) if len(values) == n else pa.nulls(n, kind)

    known = looked.nearest >= 0 if looked else np.zeros((n, 0), bool)
    offsets = pa.array(np.concatenate([[0], np.cumsum(known.sum(axis=1))]), pa.int32())
    names = schemas.id_column(outcome.nearest[known] if looked else np.zeros(0, f"S{ID_DIGITS}"))
    apart = pa.array(looked.nearest_distance[known] if looked else np.zeros(0, np.float32), pa.float32())
    columns = [
        schemas.id_column(ids), numbers(looked.novelty if looked else np.zeros(0), pa.float32()),
        numbers(outcome.percentile, pa.float32()), numbers(outcome.p, pa.float64()), numbers(q if len(outcome.p) else np.zeros(0), pa.float64()),
        pa.array(is_novel), pa.array(themes.of, pa.int32(), mask=themes.of < 0), numbers(looked.density if looked else np.zeros(0), pa.float32()),
        numbers(outcome.rare_q, pa.float64()), pa.array(is_rare), pa.ListArray.from_arrays(offsets, names), pa.ListArray.from_arrays(offsets, apart),
    ]  # fmt: skip
    return pa.Table.from_arrays(columns, schema=schemas.NOVELTY) if n else schemas.NOVELTY.empty_table()


def top_novel(report: NoveltyReport, ws: Workspace, limit: int = 10) -> list[dict[str, object]]:
    """The most novel candidates, most novel first, ties by id; empty when there was no reference."""
    return _top(ws.store.read_table(report), "novelty", limit)


def top_rare(report: NoveltyReport, ws: Workspace, limit: int = 10) -> list[dict[str, object]]:
    """The rarest of the candidates that are rare and not novel, ties by id."""
    table = ws.store.read_table(report)
    return _top(table.filter(table["is_rare"]), "density", limit) if "is_rare" in table.column_names else []


def _top(table: pa.Table, column: str, limit: int) -> list[dict[str, object]]:
    known = table.filter(table[column].is_valid())
    rows: list[dict[str, object]] = known.sort_by([(column, "descending"), ("asset_id", "ascending")]).slice(0, limit).to_pylist()
    return rows
