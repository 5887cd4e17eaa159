"""Figures of a ranking: by hand, against scikit-learn, whatever the order of the columns."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

from discovery.core.retrieval import average_precision, bootstrap, ndcg_at, precision_at, rank, recall_at
from discovery.errors import EmptyReference, InvalidInput

HITS = np.array([[True, False, True, False]])  # of 3 that are relevant


def test_the_figures_of_one_ranking_by_hand():
    three = np.array([3])
    assert average_precision(HITS, three).tolist() == pytest.approx([(1 / 1 + 2 / 3) / 3])
    assert [precision_at(HITS, k)[0] for k in (1, 2, 8)] == [1.0, 0.5, 0.25]  # a list that is too short is filled with misses
    assert [recall_at(HITS, three, k)[0] for k in (1, 3)] == pytest.approx([1 / 3, 2 / 3])
    best = 1 + 1 / np.log2(3) + 1 / 2
    assert ndcg_at(HITS, three, 4)[0] == pytest.approx((1 + 1 / 2) / best)
    assert ndcg_at(HITS, three, 1)[0] == 1.0


def drawn(seed: int, n: int = 6, r: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Distances without ties, and what is relevant: at least one for each query."""
    rng = np.random.default_rng(seed)
    relevant = rng.random((n, r)) < 0.2
    relevant[:, 0] = True
    return rng.random((n, r)), relevant


@given(seed=st.integers(0, 10_000), k=st.integers(1, 50))
@settings(max_examples=40, deadline=None)
def test_average_precision_and_ndcg_are_those_of_scikit_learn(seed, k):
    distances, relevant = drawn(seed)
    hits = np.take_along_axis(relevant, rank(distances, [f"{i:02}" for i in range(40)]), axis=1)
    count = relevant.sum(axis=1)
    expected = [average_precision_score(r, -d) for r, d in zip(relevant, distances, strict=True)]
    assert average_precision(hits, count) == pytest.approx(expected, abs=1e-12)
    assert ndcg_at(hits, count, k).mean() == pytest.approx(ndcg_score(relevant, -distances, k=k), abs=1e-12)


@given(order=st.permutations(range(12)))
@settings(max_examples=30, deadline=None)
def test_the_order_of_the_columns_changes_nothing_even_among_ties(order):
    distances = np.round(np.random.default_rng(1).random((3, 12)), 1)
    ids = [f"{i * 7 % 12:02}" for i in range(12)]
    shuffled = [ids[i] for i in order]
    expected = [[ids[i] for i in row] for row in rank(distances, ids)]
    assert expected == [[shuffled[i] for i in row] for row in rank(distances[:, order], shuffled)]
    assert len({round(float(d), 1) for d in distances[0]}) < 12  # there are ties


def test_what_may_not_be_found_comes_last():
    assert rank(np.array([[np.inf, 0.5, 2.0]]), ["a", "b", "c"]).tolist() == [[1, 2, 0]]


def test_a_perfect_ranking_has_1_everywhere_and_a_worse_one_less():
    relevant = np.array([2])
    perfect, worse = np.array([[True, True, False]]), np.array([[True, False, True]])
    for figure in (average_precision, lambda h, r: recall_at(h, r, 2), lambda h, r: ndcg_at(h, r, 2)):
        assert figure(perfect, relevant)[0] == 1.0 > figure(worse, relevant)[0]


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        found = bootstrap((rng.random(60) < 0.4).astype(float), rng, rounds=300)
        held += found.low <= 0.4 <= found.high
    assert 0.88 <= held / 200 <= 0.99


def test_the_interval_is_that_of_its_seed_and_of_the_values_alone():
    values = np.random.default_rng(2).random(30)
    one, same, other = (bootstrap(values, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert one == same != other
    assert one.mean == values.mean() and one.low < one.mean < one.high and one.queries == 30


def test_a_paired_difference_tells_apart_what_two_intervals_do_not():
    rng = np.random.default_rng(6)
    before = rng.random(200)
    after = before + 0.02 + rng.normal(0, 0.01, 200)
    assert bootstrap(after, rng).low < bootstrap(before, rng).high
    assert bootstrap(after - before, rng).low > 0


def test_what_cannot_be_figured_is_refused():
    with pytest.raises(InvalidInput, match="NaN"):
        rank(np.array([[np.nan]]), ["a"])
    with pytest.raises(InvalidInput, match="1 of 2"):
        rank(np.zeros((1, 2)), ["a", "a"])
    for relevant in (np.array([0]), np.array([1]), np.array([2, 2])):
        with pytest.raises(InvalidInput):
            average_precision(HITS, relevant)
    with pytest.raises(InvalidInput):
        precision_at(HITS, 0)
    with pytest.raises(EmptyReference):
        bootstrap(np.zeros(0), np.random.default_rng(0))
    with pytest.raises(InvalidInput):
        bootstrap(np.array([np.nan]), np.random.default_rng(0))
