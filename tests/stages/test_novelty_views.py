"""Each view finds strangers, gives valid p-values, and never compares a picture with itself."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from discovery.config import IndexConfig, NoveltyConfig
from discovery.core.companions import Companions, adaptive_novelty, companion_distance
from discovery.core.conformal import conformal_p_values
from discovery.core.knn import exact_knn, normalise
from discovery.stages import novelty_pool
from discovery.stages.novelty_pool import look_together
from discovery.stages.novelty_views import NoveltyViews
from discovery.stages.open_index import MemorySegment, OpenIndex

SCORES = ("knn", "mahalanobis", "density", "combined")


def library(n: int, seed: int) -> np.ndarray:
    """Clusters in a few directions of many, as pictures have."""
    rng = np.random.default_rng(seed)
    basis = np.random.default_rng(0).normal(size=(12, 32))
    centres = np.random.default_rng(1).normal(size=(20, 12))
    kinds = rng.integers(0, 20, n)
    return normalise(((centres[kinds] + 0.3 * rng.normal(size=(n, 12))) @ basis + 0.3 * rng.normal(size=(n, 32))).astype(np.float32))


def ids(n: int, prefix: str) -> np.ndarray:
    return np.array([hashlib.sha256(f"{prefix}{number}".encode()).hexdigest() for number in range(n)], "S64")


class Known:
    """A reference of vectors in memory, of which the last `held_out` are held out; `rows` are their rows of the index, in the order given."""

    def __init__(self, references: np.ndarray, score: str, held_out: int = 0, k: int = 5) -> None:
        names = ids(len(references), "r")
        self.index = OpenIndex([MemorySegment(names, references)], np.zeros(0, "S64"), references.shape[1], 50, IndexConfig())
        self.rows = self.index.find(names)
        self.views = NoveltyViews(self.index, np.sort(self.rows), np.sort(self.rows[len(references) - held_out :]), NoveltyConfig(score=score, k=k))

    def novelty(self, vectors: np.ndarray) -> np.ndarray:
        return self.views.look(vectors).novelty


@pytest.mark.parametrize("score", SCORES)
def test_strangers_come_first_and_ordinary_ones_have_valid_p_values(score: str) -> None:
    rng = np.random.default_rng(5)
    views = Known(library(800, 2), score)
    strangers = normalise((1.5 * rng.normal(size=(60, 32))).astype(np.float32))
    ordinary = views.novelty(library(1000, 3))
    odd = views.novelty(strangers)
    assert (odd[:, None] > ordinary[None, :]).mean() > 0.97  # AUROC
    calibration = views.novelty(library(1000, 4))
    p = conformal_p_values(calibration, ordinary)
    for level in (0.05, 0.1, 0.3):
        assert abs((p <= level).mean() - level) < 4 * np.sqrt(2 * level * (1 - level) / 1000)


def test_a_rare_kind_among_the_known_is_seen_by_density_alone() -> None:
    rng = np.random.default_rng(6)
    wide = normalise((rng.normal(size=(500, 32)) + 2).astype(np.float32))  # a kind of great variety
    tight = normalise((np.eye(1, 32) * 6 + 0.02 * rng.normal(size=(200, 32))).astype(np.float32))  # a kind that is always the same
    references = np.concatenate([wide[:400], tight])
    beside = normalise((np.eye(1, 32) * 6 + 0.25 * rng.normal(size=(20, 32))).astype(np.float32))  # unlike the tight kind, nearer than the wide one is to itself
    found = {score: Known(references, score) for score in ("knn", "density")}
    above = {
        score: (views.novelty(beside)[:, None] > views.novelty(wide[400:])[None, :]).mean() for score, views in found.items()
    }
    assert above["density"] > 0.95 > 0.05 > above["knn"]


@pytest.mark.parametrize("score", ["knn", "density"])
def test_a_reference_is_scored_without_itself(score: str) -> None:
    references = library(60, 2)
    known = Known(references, score, k=3)
    _, distances = exact_knn(references, references, 4)
    own = known.views.look_at_rows(known.rows[:5]).novelty
    assert (own > known.novelty(references[:5])).all()
    if score == "knn":
        assert own == pytest.approx(distances[:5, 1:].mean(axis=1), abs=1e-5)


@pytest.mark.parametrize("score", SCORES)
def test_held_out_rows_are_shown_and_enter_no_score(score: str) -> None:
    """A candidate that is equal to a held-out row has it as its nearest, and the novelty that it has without it."""
    references = library(400, 2)
    half, alone = Known(references, score, held_out=200), Known(references[:200], score)
    looked = half.views.look(references[200:])
    assert (looked.nearest[:, 0] == half.rows[200:]).all() and looked.nearest_distance[:, 0] == pytest.approx(0, abs=1e-5)
    assert looked.novelty == pytest.approx(alone.novelty(references[200:]), rel=1e-4)
    assert half.views.look_at_rows(half.rows[200:]).novelty == pytest.approx(looked.novelty, rel=1e-4)  # the same function for both


def test_density_comes_beside_any_score() -> None:
    references, asked = library(300, 2), library(40, 8)
    beside = Known(references, "knn").views.look(asked, density=True)
    assert beside.density == pytest.approx(Known(references, "density").novelty(asked), rel=1e-5)
    assert beside.novelty == pytest.approx(Known(references, "knn").novelty(asked), rel=1e-6)


@pytest.mark.parametrize("score", SCORES)
def test_scores_do_not_depend_on_what_was_scored_before_or_on_the_order_of_references(score: str) -> None:
    references, asked = library(200, 2), library(30, 8)
    first = Known(references, score)
    first.novelty(library(50, 9))
    alone = np.concatenate([first.novelty(asked[row : row + 1]) for row in range(30)])
    assert np.allclose(alone, Known(references, score).novelty(asked), rtol=1e-4)
    if score in ("knn", "mahalanobis", "density"):  # typical rows of `combined` are drawn by their ids
        turned = np.random.default_rng(3).permutation(200)
        assert np.allclose(alone, Known(references[turned], score).novelty(asked), rtol=1e-4)


def test_a_pool_is_looked_at_whole_or_by_a_draw_and_in_any_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    known = Known(library(400, 2), "adaptive")
    new = normalise((normalise(rng.normal(size=(1, 32))) + 0.5 * rng.normal(size=(40, 32)) / np.sqrt(32)).astype(np.float32))  # unlike the known, not equal
    pool = np.concatenate([library(300, 3), new])
    names, looked = ids(len(pool), "p"), known.views.look(pool)

    def blocks(places: np.ndarray, size: int = 64) -> list[tuple[np.ndarray, np.ndarray]]:
        mixed = rng.permutation(places)
        return [(part, pool[part]) for part in np.array_split(mixed, max(1, len(mixed) // size))]

    whole = look_together(names, looked, blocks, "salt")
    by_hand = adaptive_novelty(looked.novelty, Companions.of(pool, looked.novelty, pool, looked.novelty, companion_distance(looked.closest)))
    assert whole == pytest.approx(by_hand, rel=1e-4)
    monkeypatch.setattr(novelty_pool, "POOL_ROWS", 170)
    drawn = look_together(names, looked, blocks, "salt")
    assert (look_together(names, looked, blocks, "salt") == pytest.approx(drawn, rel=1e-4)) and np.isfinite(drawn).all()
    assert np.corrcoef(whole, drawn)[0, 1] > 0.9 and (drawn != pytest.approx(whole, rel=1e-3))
    assert (drawn[300:, None] > drawn[None, :300]).mean() > 0.9
