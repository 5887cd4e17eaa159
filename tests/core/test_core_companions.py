"""Looking at candidates beside their like finds what comes in several, keeps the promise of p-values, and does not take a burst for news."""

from __future__ import annotations

import numpy as np
import pytest

from discovery.core.companions import Companions, adaptive_novelty, companion_distance
from discovery.core.conformal import benjamini_hochberg, conformal_p_values
from discovery.core.knn import exact_knn, normalise
from discovery.core.novelty import knn_novelty

DIM = 48


def pictures(n: int, rng: np.random.Generator, kinds: np.ndarray) -> np.ndarray:
    """Of many kinds, some common and some not, each of some variety."""
    share = 1.0 / np.arange(1, len(kinds) + 1)
    return normalise((kinds[rng.choice(len(kinds), n, p=share / share.sum())] + 0.8 * rng.normal(size=(n, DIM)) / np.sqrt(DIM)).astype(np.float32))


def world(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Centres of the known kinds, and one that is new, unlike them about as much as they are unlike each other."""
    centres = normalise(rng.normal(size=(61, DIM)).astype(np.float32))
    return centres[:60], centres[60:]


def scored(references: np.ndarray, calibration: np.ndarray, batch: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Scores of calibration and batch, alone and together."""
    pool = np.concatenate([calibration, batch])
    _, distances = exact_knn(pool, references, 5)
    alone = knn_novelty(distances)
    found = adaptive_novelty(alone, Companions.of(pool, alone, pool, alone, companion_distance(distances[:, 0])))
    c = len(calibration)
    return {"knn": (alone[:c], alone[c:]), "adaptive": (found[:c], found[c:])}


def called(scores: tuple[np.ndarray, np.ndarray], level: float = 0.1) -> np.ndarray:
    return benjamini_hochberg(conformal_p_values(*scores)) <= level


def odd_ones(n: int, rng: np.random.Generator) -> np.ndarray:
    """Of no kind at all: the tail that hides what is new."""
    return normalise(rng.normal(size=(n, DIM)).astype(np.float32))


def test_it_finds_what_comes_in_several_and_its_errors_stay_under_the_level() -> None:
    rng = np.random.default_rng(1)
    false: dict[str, list[float]] = {"knn": [], "adaptive": []}
    power: dict[str, list[float]] = {"knn": [], "adaptive": []}
    for _ in range(60):
        kinds, new = world(rng)

        def ordinary(n: int, kinds: np.ndarray = kinds) -> np.ndarray:
            return np.concatenate([pictures(n - n // 50, rng, kinds), odd_ones(n // 50, rng)])

        batch = np.concatenate([ordinary(300), pictures(15, rng, new)])
        for name, scores in scored(ordinary(500), ordinary(400), batch).items():
            found = called(scores)
            false[name].append(found[:300].sum() / max(found.sum(), 1))
            power[name].append(found[300:].mean())
    for name, shares in false.items():
        assert np.mean(shares) <= 0.1 + 2 * np.std(shares, ddof=1) / np.sqrt(len(shares)), name
    assert np.mean(power["knn"]) < 0.3 < 0.7 < np.mean(power["adaptive"])


def test_p_values_of_ordinary_ones_hold_whatever_comes_with_them() -> None:
    rng = np.random.default_rng(2)
    p = []
    for _ in range(80):
        kinds, new = world(rng)
        batch = np.concatenate([pictures(100, rng, kinds), pictures(40, rng, new)])
        scores = scored(pictures(300, rng, kinds), pictures(200, rng, kinds), batch)["adaptive"]
        p.append(conformal_p_values(*scores)[:100])
    for level in (0.02, 0.1, 0.3):
        means = (np.array(p) <= level).mean(axis=1)
        assert means.mean() <= level + 3 * means.std(ddof=1) / np.sqrt(len(means))


@pytest.mark.parametrize("spread", [0.1, 0.3])
def test_a_burst_of_an_ordinary_picture_is_no_news(spread: float) -> None:
    rng = np.random.default_rng(3)
    wrong = {"knn": 0, "adaptive": 0}
    for _ in range(60):
        kinds, _ = world(rng)
        one = pictures(1, rng, kinds)
        shots = normalise((one + spread * rng.normal(size=(30, DIM)) / np.sqrt(DIM)).astype(np.float32))
        batch = np.concatenate([pictures(300, rng, kinds), shots])
        for name, scores in scored(pictures(500, rng, kinds), pictures(400, rng, kinds), batch).items():
            wrong[name] += called(scores).any()
    assert wrong["adaptive"] <= wrong["knn"] + 6  # of 60


def test_it_does_not_matter_which_of_the_pool_are_candidates_nor_their_order() -> None:
    rng = np.random.default_rng(4)
    kinds, _ = world(rng)
    pool, references = pictures(120, rng, kinds), pictures(200, rng, kinds)
    order = rng.permutation(120)
    before = np.concatenate(scored(references, pool[:50], pool[50:])["adaptive"])
    after = np.concatenate(scored(references, pool[order][:70], pool[order][70:])["adaptive"])
    assert after == pytest.approx(before[order], rel=1e-5)


def test_a_pool_of_equal_pictures_has_no_companions() -> None:
    same = np.tile(normalise(np.ones((1, 8), np.float32)), (6, 1))
    found = Companions.of(same, np.full(6, 0.3, np.float32), same, np.full(6, 0.3, np.float32), companion_distance(np.zeros(6, np.float32)))
    assert np.isnan(found.distance).all()
    assert adaptive_novelty(np.full(6, 0.3, np.float32), found) == pytest.approx(np.full(6, 0.3))
