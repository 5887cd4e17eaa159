"""Selectors against brute force on tiny instances, in any order, under quotas and with members that are there already."""

from itertools import combinations

import numpy as np
import pytest

from discovery.core.knn import normalise
from discovery.core.selection import SELECTORS, Candidates, Quotas
from discovery.errors import InvalidInput


def make(seed: int = 0, n: int = 9, categories=None, preselected=()) -> Candidates:
    rng = np.random.default_rng(seed)
    mask = np.isin(np.arange(n), list(preselected))
    vectors = normalise(rng.normal(size=(n, 3)).astype(np.float32))
    named = None if categories is None else np.array(list(categories), object)
    return Candidates([f"{i:02}" for i in range(n)], vectors, rng.uniform(size=n), named, mask)


def coverage(candidates: Candidates, rows) -> float:
    return float(np.maximum(candidates.vectors @ candidates.vectors[list(rows)].T, 0).astype(float).max(axis=1).sum())


@pytest.mark.parametrize("seed", range(12))
def test_facility_location_is_near_the_best_of_all_subsets_and_its_bound_is_true(seed):
    candidates, budget = make(seed), 3
    best = max(coverage(candidates, rows) for rows in combinations(range(9), budget))  # 84 subsets
    found = SELECTORS["facility_location"](candidates, budget, None, 0)
    assert found.objective == pytest.approx(coverage(candidates, found.indices), abs=1e-4)
    assert found.objective >= (1 - 1 / np.e) * best - 1e-4
    assert 0 < found.optimality_bound <= 1 and found.optimality_bound * best <= found.objective + 1e-4


def test_gains_never_grow_and_sum_to_the_objective():
    found = SELECTORS["facility_location"](make(4), 5, None, 0)
    assert (np.diff(found.gains) <= 1e-6).all() and found.gains.sum() == pytest.approx(found.objective)


def test_two_clusters_get_one_member_each():
    vectors = normalise(np.array([[1, 0], [1, 0.1], [1, 0.2], [0, 1], [0.1, 1]], np.float32))
    candidates = Candidates(list("abcde"), vectors, np.full(5, np.nan), None, np.zeros(5, bool))
    picks = SELECTORS["facility_location"](candidates, 2, None, 0).indices.tolist()
    assert picks[0] in (0, 1, 2) and picks[1] in (3, 4)  # the larger cluster first


@pytest.mark.parametrize("method", sorted(SELECTORS))
@pytest.mark.parametrize("seed", range(4))
def test_a_permutation_of_the_candidates_gives_the_same_ids(method, seed):
    candidates = make(seed, 30, "abc" * 10)
    order = np.random.default_rng(seed + 100).permutation(30)
    shuffled = Candidates(
        [candidates.asset_ids[i] for i in order], candidates.vectors[order], candidates.novelty[order],
        candidates.categories[order], candidates.preselected[order],
    )  # fmt: skip
    quotas = Quotas({"a": 3}, {"b": 2})
    one, two = (SELECTORS[method](c, 8, quotas, 7) for c in (candidates, shuffled))
    assert [candidates.asset_ids[i] for i in one.indices] == [shuffled.asset_ids[i] for i in two.indices]


@pytest.mark.parametrize("method", sorted(SELECTORS))
def test_quotas_hold(method):
    candidates = make(2, 40, "a" * 30 + "b" * 10)
    found = SELECTORS[method](candidates, 8, Quotas({"b": 5}, {"a": 2}), 1)
    chosen = candidates.categories[found.indices].tolist()
    assert len(chosen) == 8 and chosen.count("a") <= 2 and chosen.count("b") >= 5


@pytest.mark.parametrize("method", sorted(SELECTORS))
def test_members_are_not_picked_again(method):
    found = SELECTORS[method](make(3, 20, preselected=(0, 5)), 18, None, 0)
    assert not {0, 5} & set(found.indices.tolist()) and len(set(found.indices.tolist())) == len(found.indices) >= 17


def test_a_member_counts_for_its_quota():
    found = SELECTORS["most_novel"](make(3, 6, "aaabbb", preselected=(0,)), 3, Quotas({}, {"a": 1}), 0)
    assert sorted(found.indices.tolist()) == [3, 4, 5]


@pytest.mark.parametrize("method", sorted(SELECTORS))
@pytest.mark.parametrize("quotas", [Quotas({"a": 4}), Quotas({"zebra": 1}), Quotas({"a": 2}, {"a": 1}), Quotas({"a": 3, "b": 3})])
def test_quotas_that_cannot_be_met_are_refused(method, quotas):
    with pytest.raises(InvalidInput, match="Quota"):
        SELECTORS[method](make(0, 6, "aaabbb"), 5, quotas, 0)


def test_a_budget_above_the_candidates_takes_all():
    assert sorted(SELECTORS["facility_location"](make(0, 4), 9, None, 0).indices.tolist()) == [0, 1, 2, 3]


def test_most_novel_takes_the_highest_and_the_unknown_last():
    candidates = Candidates(list("abcd"), np.eye(4, dtype=np.float32), np.array([0.1, np.nan, 0.9, 0.5]), None, np.zeros(4, bool))
    found = SELECTORS["most_novel"](candidates, 4, None, 0)
    assert found.indices.tolist() == [2, 3, 0, 1] and found.optimality_bound == 1.0


def test_another_seed_draws_others():
    draws = {tuple(sorted(SELECTORS["random"](make(0, 40), 5, None, seed).indices.tolist())) for seed in range(5)}
    assert len(draws) == 5


def test_k_center_leaves_the_lonely_outlier_out():
    rng = np.random.default_rng(0)
    vectors = normalise(np.concatenate([rng.normal([5, 0, 0], 0.5, (39, 3)), [[-5, 0, 0]]]).astype(np.float32))
    candidates = Candidates([f"{i:02}" for i in range(40)], vectors, np.zeros(40), None, np.zeros(40, bool))
    assert 39 not in SELECTORS["k_center"](candidates, 10, None, 0).indices
