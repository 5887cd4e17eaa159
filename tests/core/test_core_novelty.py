"""Views of novelty: against scikit-learn, on hand-made numbers, and what they see that the others do not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import LedoitWolf

from discovery.core.knn import normalise
from discovery.core.novelty import Gaussian, RankScale, combined, density_novelty
from discovery.errors import EmptyReference, InvalidInput


def cloud(n: int, dim: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return normalise((rng.normal(size=(n, dim)) @ rng.normal(size=(dim, dim)) + 0.5).astype(np.float32))


@pytest.mark.parametrize(("n", "dim"), [(300, 20), (30, 60), (3, 5)])
def test_the_gaussian_is_that_of_ledoit_and_wolf(n, dim):
    references, others = cloud(n, dim, 1), cloud(40, dim, 2)
    found, expected = Gaussian.of(lambda: np.array_split(references, 7)), LedoitWolf().fit(references.astype(np.float64))
    assert found.shrinkage == pytest.approx(expected.shrinkage_, abs=1e-6)
    assert np.allclose(found.novelty(others, block=11), np.sqrt(expected.mahalanobis(others)), rtol=1e-4)


def test_the_gaussian_sees_a_direction_that_references_do_not_have():
    rng = np.random.default_rng(4)
    references = normalise(np.concatenate([rng.normal(size=(3000, 8)) + 3, rng.normal(0, 0.02, (3000, 1))], axis=1).astype(np.float32))
    near = references[:1].copy()
    near[0, -1] += 0.2  # a small step, but where nothing ever steps
    far = references[:1].copy()
    far[0, 0] += 0.2
    gaussian = Gaussian.of(lambda: [references])
    assert gaussian.novelty(normalise(near))[0] > 1.5 * gaussian.novelty(normalise(far))[0]


@pytest.mark.parametrize("references", [np.eye(2, 3, dtype=np.float32), np.tile(np.eye(1, 3, dtype=np.float32), (9, 1))])
def test_references_without_a_covariance_are_refused(references):
    with pytest.raises(EmptyReference):
        Gaussian.of(lambda: [references])


def test_density_stays_finite_among_equal_references():
    zero = np.zeros((2, 3), np.float32)
    assert np.isfinite(density_novelty(zero + 0.5, zero)).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 2, width=32), min_size=10, max_size=60), st.lists(st.floats(0, 50, width=32), min_size=2, max_size=30))
def test_ranks_grow_with_scores_within_and_beyond_what_is_typical(typical, scores):
    scale = RankScale.of(np.array(typical, np.float32))
    ordered = np.sort(np.array(scores, np.float32))
    ranks = scale.rank(ordered)
    assert (np.diff(ranks) >= 0).all()
    beyond = ranks[ordered > max(typical)]
    assert (np.diff(beyond)[np.diff(ordered[ordered > max(typical)]) > 1e-3] > 0).all() and (beyond >= scale.ranks[-1]).all()
    share = (np.array(typical) <= 1.0).mean()
    assert abs(float(scale.rank(np.array([1.0], np.float32))[0]) - share) <= 0.1 + 1 / len(typical) or max(typical) <= 1 or min(typical) >= 1 or len(set(typical)) < 30


@pytest.mark.parametrize("typical", [np.zeros(9, np.float32), np.array([np.nan] * 20, np.float32)])
def test_too_few_typical_scores_are_refused(typical):
    with pytest.raises(InvalidInput, match="ten"):
        RankScale.of(typical)


def test_a_rank_beyond_all_counts_more_than_two_that_are_usual():
    scale = RankScale.of(np.linspace(0, 1, 101, dtype=np.float32))
    usual, one_view = np.array([0.9], np.float32), np.array([6.0], np.float32)
    assert combined([scale, scale], [one_view, usual])[0] > combined([scale, scale], [usual, usual])[0] > 0.85
