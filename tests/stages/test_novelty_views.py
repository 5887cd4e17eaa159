"""Each view finds strangers, gives valid p-values, and never compares a picture with itself."""

from __future__ import annotations

import numpy as np
import pytest

from discovery.config import NoveltyConfig
from discovery.core.conformal import conformal_p_values
from discovery.core.knn import exact_knn, normalise
from discovery.stages.novelty_views import NoveltyViews

SCORES = ("knn", "mahalanobis", "density", "combined")


def library(n: int, seed: int) -> np.ndarray:
    """Clusters in a few directions of many, as pictures have."""
    rng = np.random.default_rng(seed)
    basis = np.random.default_rng(0).normal(size=(12, 32))
    centres = np.random.default_rng(1).normal(size=(20, 12))
    kinds = rng.integers(0, 20, n)
    return normalise(((centres[kinds] + 0.3 * rng.normal(size=(n, 12))) @ basis + 0.3 * rng.normal(size=(n, 32))).astype(np.float32))


def names(n: int, prefix: str) -> list[str]:
    return [f"{prefix}{number:05}" for number in range(n)]


@pytest.mark.parametrize("score", SCORES)
def test_strangers_come_first_and_ordinary_ones_have_valid_p_values(score: str) -> None:
    rng = np.random.default_rng(5)
    views = NoveltyViews(library(800, 2), names(800, "r"), NoveltyConfig(score=score))
    strangers = normalise((1.5 * rng.normal(size=(60, 32))).astype(np.float32))
    ordinary = views.novelty(library(1000, 3), names(1000, "o"))
    odd = views.novelty(strangers, names(60, "s"))
    assert (odd[:, None] > ordinary[None, :]).mean() > 0.97  # AUROC
    calibration = views.novelty(library(1000, 4), names(1000, "c"))
    p = conformal_p_values(calibration, ordinary)
    for level in (0.05, 0.1, 0.3):
        assert abs((p <= level).mean() - level) < 4 * np.sqrt(2 * level * (1 - level) / 1000)


def test_a_rare_kind_among_the_known_is_seen_by_density_alone() -> None:
    rng = np.random.default_rng(6)
    wide = normalise((rng.normal(size=(500, 32)) + 2).astype(np.float32))  # a kind of great variety
    tight = normalise((np.eye(1, 32) * 6 + 0.02 * rng.normal(size=(200, 32))).astype(np.float32))  # a kind that is always the same
    references = np.concatenate([wide[:400], tight])
    beside = normalise((np.eye(1, 32) * 6 + 0.25 * rng.normal(size=(20, 32))).astype(np.float32))  # unlike the tight kind, nearer than the wide one is to itself
    found = {score: NoveltyViews(references, names(600, "r"), NoveltyConfig(score=score)) for score in ("knn", "density")}
    above = {
        score: (views.novelty(beside, names(20, "b"))[:, None] > views.novelty(wide[400:], names(100, "w"))[None, :]).mean() for score, views in found.items()
    }
    assert above["density"] > 0.95 > 0.05 > above["knn"]


@pytest.mark.parametrize("score", ["knn", "density"])
def test_a_reference_is_scored_without_itself(score: str) -> None:
    references = library(60, 2)
    views = NoveltyViews(references, names(60, "r"), NoveltyConfig(score=score, k=3))
    _, distances = exact_knn(references, references, 4)
    own = views.novelty(references[:5], names(60, "r")[:5])
    other = views.novelty(references[:5], names(5, "x"))
    assert (own > other).all()
    if score == "knn":
        assert own == pytest.approx(distances[:5, 1:].mean(axis=1), abs=1e-5)


def test_scores_do_not_depend_on_what_was_scored_before_or_on_the_order_of_references() -> None:
    references, ids = library(200, 2), names(200, "r")
    asked = library(30, 8)
    turned = np.random.default_rng(3).permutation(200)
    for score in SCORES:
        first = NoveltyViews(references, ids, NoveltyConfig(score=score))
        first.novelty(library(50, 9), names(50, "q"))
        second = NoveltyViews(references[turned], [ids[row] for row in turned], NoveltyConfig(score=score))
        assert np.allclose(first.novelty(asked, names(30, "a")), second.novelty(asked, names(30, "a")), rtol=1e-4)
