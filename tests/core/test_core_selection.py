"""Selectors against brute force on tiny instances, in any order, under quotas and with members that are there already."""

from dataclasses import replace
from itertools import combinations
from time import process_time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.core.knn import normalise
from discovery.core.neighbour_graph import neighbours_of
from discovery.core.quotas import NO_LIMIT, Allowance, Limits, Quota
from discovery.core.selection import GRAPH_NEIGHBOURS, SELECTORS, UNIT, Candidates, Options, select, weights
from discovery.errors import InvalidInput


def make(seed: int = 0, n: int = 9, strata=None, preselected=(), sizes=None) -> Candidates:
    rng = np.random.default_rng(seed)
    mask = np.isin(np.arange(n), list(preselected))
    vectors = normalise(rng.normal(size=(n, 3)).astype(np.float32))
    strata = np.array(list(strata if strata is not None else "xyz" * n)[:n], object)
    return Candidates([f"{i:03}" for i in range(n)], vectors, rng.uniform(size=n), mask, None if sizes is None else np.array(sizes), strata)


def by(values, minimum=None, maximum=None, name="kind") -> Quota:
    return Quota(name, np.array(list(values), object), minimum or {}, maximum or {})


def coverage(candidates: Candidates, rows) -> float:
    best = np.maximum(candidates.vectors @ candidates.vectors[list(rows)].T, 0).astype(float).max(axis=1)
    return float((best * weights(candidates.neighbours)).sum() / UNIT)


@pytest.mark.parametrize("seed", range(12))
def test_facility_location_is_near_the_best_of_all_subsets_and_its_bound_is_true(seed):
    candidates, budget = make(seed), 3
    best = max(coverage(candidates, rows) for rows in combinations(range(9), budget))  # 84 subsets
    found = select("facility_location", candidates, Limits(budget))
    assert found.objective == pytest.approx(coverage(candidates, found.indices), abs=3e-3)
    assert found.objective >= (1 - 1 / np.e) * best - 3e-3
    assert 0 < found.optimality_bound <= 1 and found.optimality_bound * best <= found.objective + 3e-3


@pytest.mark.parametrize("seed", range(8))
def test_the_bound_is_true_under_a_quota_and_greedy_reaches_half(seed):
    candidates, kinds = make(seed), "aaaaabbbb"
    sets = [rows for rows in combinations(range(9), 3) if sum(kinds[i] == "a" for i in rows) <= 1]
    best = max(coverage(candidates, rows) for rows in sets)
    found = select("facility_location", candidates, Limits(3), [by(kinds, maximum={"a": 1})])
    assert found.objective >= best / 2 - 3e-3 and found.optimality_bound * best <= found.objective + 3e-3


@pytest.mark.parametrize("seed", range(8))
def test_a_budget_in_bytes_is_kept_and_its_bound_is_true(seed):
    sizes = np.random.default_rng(seed).integers(1, 9, 9)
    candidates = make(seed, sizes=sizes)
    sets = [rows for count in range(1, 10) for rows in combinations(range(9), count) if sizes[list(rows)].sum() <= 12]
    best = max(coverage(candidates, rows) for rows in sets)
    found = select("facility_location", candidates, Limits(9, 12))
    assert sizes[found.indices].sum() <= 12
    assert found.objective >= (1 - 1 / np.e) / 2 * best - 3e-3 and found.optimality_bound * best <= found.objective + 3e-3


def test_gains_never_grow_and_sum_to_the_objective_and_what_is_left_is_what_a_row_would_add():
    candidates = make(4)
    found = select("facility_location", candidates, Limits(5))
    assert (np.diff(found.gains) <= 1e-9).all() and found.gains.sum() == pytest.approx(found.objective)
    other = next(row for row in range(9) if row not in found.indices)
    grown = coverage(candidates, [*found.indices, other]) - coverage(candidates, found.indices)
    assert found.left[other] == pytest.approx(grown, abs=3e-3) and (found.left[found.indices] == 0).all()


def test_lazy_evaluation_picks_what_plain_greedy_picks():
    candidates = make(7, 120)
    found = select("facility_location", candidates, Limits(40))
    covering = candidates.neighbours_for(40).covering
    dense = np.zeros((120, 120), np.int64)
    for row in range(120):
        part = slice(covering.starts[row], covering.starts[row + 1])
        dense[row, covering.columns[part]] = covering.similarity[part]
    assert (dense == dense.T).all()
    dense *= weights(candidates.neighbours)  # of the column, which is covered
    covered, picks = np.zeros(120, np.int64), []
    for _ in range(40):
        gains = np.maximum(dense - covered, 0).sum(axis=1)
        gains[picks] = -1
        picks.append(int(np.argmax(gains)))
        covered = np.maximum(covered, dense[picks[-1]])
    assert found.indices.tolist() == picks


def test_the_number_of_threads_changes_nothing(monkeypatch):
    candidates = make(5, 400)
    for exact_rows in (1_000, 100):  # all pairs; blocks
        monkeypatch.setattr("discovery.core.neighbour_graph.QUERIES", 64)
        monkeypatch.setattr("discovery.core.neighbour_graph.BLOCK_ROWS", 100)
        one, many = (neighbours_of(candidates.vectors, 8, exact_rows, threads) for threads in (1, 5))
        assert (one.rows == many.rows).all() and (one.similarity == many.similarity).all() and one.recall == many.recall > 0.5


def test_a_candidate_weighs_as_much_as_its_neighbours_are_far_at_most_four_times_the_median():
    # distances to the nearest: 0, 0, 1 - .8, 1 - .8 and 1: the median is .2; no weight is below a sixteenth or above four
    vectors = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0.8, 0.6, 0], [0, 0, 0, 1]], np.float32)
    assert (weights(neighbours_of(vectors, 1)) / UNIT).tolist() == [1 / 16, 1 / 16, 1, 1, 4]
    assert (weights(neighbours_of(vectors[:2], 1)) == UNIT).all()  # all alike
    assert (weights(neighbours_of(vectors[:1], 1)) == UNIT).all()  # no neighbour at all


def test_what_is_lonely_weighs_most_and_is_covered_by_a_few_picks():
    # two crowds of 40 and three lonely ones, whose ten nearest are mostly of the crowds
    rng = np.random.default_rng(0)
    centres = np.eye(3)[np.repeat([0, 1, 2], [40, 40, 3])]
    vectors = normalise((centres + rng.normal(scale=0.05, size=centres.shape)).astype(np.float32))
    candidates = Candidates([f"{i:02}" for i in range(83)], vectors, np.zeros(83), np.zeros(83, bool))
    weight = weights(candidates.neighbours)
    assert weight[80:].min() == 4 * UNIT and np.median(weight[:80]) <= UNIT
    assert 2 in np.argmax(vectors[select("facility_location", candidates, Limits(3)).indices], axis=1)


def test_few_members_of_many_are_chosen_on_a_wider_graph():
    candidates = make(6, 300)
    assert candidates.neighbours_for(150).rows.shape[1] == GRAPH_NEIGHBOURS
    assert candidates.neighbours_for(10).rows.shape[1] == 60  # 2 * 300 / 10
    assert candidates.neighbours_for(1).rows.shape[1] == 256


def test_a_budget_in_bytes_alone_chooses_the_graph_by_the_members_that_fit():
    candidates = make(6, 300, sizes=[10] * 300)
    select("facility_location", candidates, Limits(300, 100))  # 10 members
    assert candidates.neighbours_for(10) is candidates._wider[60]
    looks = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("discovery.core.selection._Bound.look", lambda bound, cover: looks.append(len(looks)))
        select("facility_location", make(6, 300, sizes=[10] * 300), Limits(300, 800))  # 80 members, twice
    assert len(looks) == 2 * (1 + 8 + 1)


def test_two_clusters_get_one_member_each():
    vectors = normalise(np.array([[1, 0], [1, 0.1], [1, 0.2], [0, 1], [0.1, 1]], np.float32))
    candidates = Candidates(list("abcde"), vectors, np.full(5, np.nan), np.zeros(5, bool))
    picks = select("facility_location", candidates, Limits(2)).indices.tolist()
    assert picks[0] in (0, 1, 2) and picks[1] in (3, 4)  # the larger cluster first


@pytest.mark.parametrize("method", sorted(SELECTORS))
@given(order=st.permutations(range(30)), seed=st.integers(0, 3), sized=st.booleans(), copies=st.booleans())
@settings(max_examples=12, deadline=None)
def test_a_permutation_of_the_candidates_gives_the_same_ids(method, order, seed, sized, copies):
    candidates = make(seed, 30, "abc" * 10, sizes=range(1, 31) if sized else None)
    if copies:
        candidates.vectors[10:20] = candidates.vectors[0]  # ties everywhere
    rows = np.array(order)
    limits = Limits(8, 250 if sized else NO_LIMIT)
    one = select(method, candidates, limits, [by("abc" * 10, {"a": 3}, {"b": 2})])
    two = select(method, candidates.take(rows), limits, [by(np.array(list("abc" * 10), object)[rows], {"a": 3}, {"b": 2})])
    assert [candidates.asset_ids[i] for i in one.indices] == [candidates.asset_ids[rows[i]] for i in two.indices]
    assert np.array_equal(one.left[rows], two.left, equal_nan=True) and np.array_equal(one.gains, two.gains, equal_nan=True)
    assert sorted(one.set_aside) == sorted(rows[two.set_aside])


@pytest.mark.parametrize("method", sorted(SELECTORS))
def test_quotas_hold(method):
    kinds = "a" * 30 + "b" * 10
    found = select(method, make(2, 40), Limits(8), [by(kinds, {"b": 5}, {"a": 2})])
    chosen = [kinds[row] for row in found.indices]
    assert len(chosen) == 8 and chosen.count("a") <= 2 and chosen.count("b") >= 5


@pytest.mark.parametrize("method", sorted(SELECTORS))
def test_quotas_by_two_columns_hold_together(method):
    kinds, places = "a" * 20 + "b" * 20, "xy" * 20
    quotas = [by(kinds, {"a": 4}, {"b": 5}), by(places, {"x": 3, "y": 3}, {"x": 3}, "place")]
    found = select(method, make(3, 40), Limits(8), quotas)
    chosen = [(kinds[row], places[row]) for row in found.indices]
    assert len(chosen) == 8 and sum(k == "a" for k, _ in chosen) >= 4 and sum(k == "b" for k, _ in chosen) <= 5
    assert sum(p == "x" for _, p in chosen) == 3 and sum(p == "y" for _, p in chosen) == 5


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_minima_of_two_columns_are_met_whenever_they_can_be(data):
    n, budget = 9, data.draw(st.integers(1, 5))
    kinds = data.draw(st.lists(st.sampled_from("ab"), min_size=n, max_size=n))
    places = data.draw(st.lists(st.sampled_from("xyz"), min_size=n, max_size=n))
    bounds = st.integers(0, 3)
    quotas = []
    for name, values in (("kind", kinds), ("place", places)):
        least = {value: data.draw(bounds) for value in sorted(set(values))}
        most = {value: least[value] + data.draw(bounds) for value in sorted(set(values))}
        quotas.append(by(values, least, most, name))

    def fits(rows, quota):
        counts = {value: sum(quota.values[row] == value for row in rows) for value in quota.minimum}
        return all(quota.minimum[value] <= count <= quota.maximum[value] for value, count in counts.items())

    possible = [rows for count in range(budget + 1) for rows in combinations(range(n), count) if all(fits(rows, q) for q in quotas)]
    try:
        found = select("most_novel", make(data.draw(st.integers(0, 5)), n), Limits(budget), quotas)
    except InvalidInput:
        assert not possible
    else:
        assert tuple(sorted(found.indices.tolist())) in possible


@pytest.mark.parametrize("method", sorted(SELECTORS))
def test_members_are_not_picked_again(method):
    found = select(method, make(3, 20, preselected=(0, 5)), Limits(18))
    assert not {0, 5} & set(found.indices.tolist()) and len(set(found.indices.tolist())) == len(found.indices) >= 17


def test_a_member_counts_for_its_quota():
    found = select("most_novel", make(3, 6, preselected=(0,)), Limits(3), [by("aaabbb", maximum={"a": 1})])
    assert sorted(found.indices.tolist()) == [3, 4, 5]


def test_members_that_are_over_a_maximum_stay_and_no_more_are_taken():
    found = select("most_novel", make(3, 6, preselected=(0, 1)), Limits(3), [by("aaabbb", {"b": 1}, {"a": 1})])
    assert sorted(found.indices.tolist()) == [3, 4, 5]


def test_what_members_cover_is_not_paid_for_again():
    vectors = normalise(np.array([[1, 0], [1, 0.1], [1, 0.2], [0, 1], [0.1, 1]], np.float32))
    candidates = Candidates(list("abcde"), vectors, np.full(5, np.nan), np.array([0, 1, 0, 0, 0], bool))
    assert select("facility_location", candidates, Limits(1)).indices[0] in (3, 4)


@pytest.mark.parametrize("method", sorted(SELECTORS))
@pytest.mark.parametrize(
    ("quotas", "said"),
    [
        ([({"a": 4}, {})], r"'a' should have at least 4, 3 are possible"),
        ([({"zebra": 1}, {})], "no candidate is 'zebra'"),
        ([({"a": 2}, {"a": 1})], r"at least 2, 1 are possible"),
        ([({"a": 3, "b": 3}, {})], "at least 6 more members, the budget leaves 5"),
    ],
)
def test_quotas_that_cannot_be_met_are_refused_with_the_reason(method, quotas, said):
    with pytest.raises(InvalidInput, match=said):
        select(method, make(0, 6), Limits(5), [by("aaabbb", *bounds) for bounds in quotas])


def test_columns_that_cannot_be_met_together_are_told_with_what_could_be():
    # both a's are x, of which one is allowed
    with pytest.raises(InvalidInput, match="kind and place cannot be met together: kind 'a' would get 1 of 2"):
        select("random", make(0, 6), Limits(5), [by("aabbbb", {"a": 2}), by("xxyyyy", {}, {"x": 1}, "place")])
    with pytest.raises(InvalidInput, match="together ask for at least 4 more members, the budget leaves 3"):
        select("random", make(0, 6), Limits(3), [by("aabbbb", {"a": 2}), by("xxyyyy", {"y": 2}, {}, "place")])


def test_minima_that_do_not_fit_the_bytes_are_told():
    with pytest.raises(InvalidInput, match="asks for members that have at least 20 bytes, even the smallest ones; the budget leaves 10 bytes"):
        select("most_novel", make(0, 4, sizes=[1, 1, 20, 20]), Limits(3, 10), [by("aabb", {"b": 1})])
    with pytest.raises(InvalidInput, match="Quotas by kind and place together ask for members that have at least 21 bytes"):
        select("random", make(0, 4, sizes=[1, 1, 20, 20]), Limits(3, 10), [by("aabb", {"a": 1, "b": 1}), by("xyxy", {"x": 1}, {}, "place")])


@pytest.mark.parametrize("method", sorted(SELECTORS))
def test_the_smallest_rows_that_minima_need_are_kept_free(method):
    # of 100 bytes A takes 40 and B 50; each other A leaves B too little
    candidates = make(0, 5, sizes=[60, 40, 60, 60, 50])
    assert sorted(select(method, candidates, Limits(5, 100), [by("aaaab", {"a": 1, "b": 1})]).indices.tolist()) == [1, 4]


def feasible(sizes, budget, room, quotas):
    """Every set of rows that the limits and the quotas allow."""

    def fits(rows, quota):
        counts = {value: sum(quota.values[row] == value for row in rows) for value in set(quota.values)}
        return all(quota.minimum.get(value, 0) <= count <= quota.maximum.get(value, 99) for value, count in counts.items())

    n = len(sizes)
    sets = (rows for count in range(budget + 1) for rows in combinations(range(n), count))
    return {rows for rows in sets if sum(sizes[row] for row in rows) <= room and all(fits(rows, quota) for quota in quotas)}


@pytest.mark.parametrize("columns", [1, 2])
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_minima_within_a_budget_in_bytes_are_met_whenever_they_can_be(columns, data):
    n, small = 8, st.integers(0, 2)
    sizes = data.draw(st.lists(st.integers(0, 9), min_size=n, max_size=n))
    budget, room = data.draw(st.integers(1, n)), data.draw(st.integers(1, 30))
    quotas = []
    for name, letters in (("kind", "abc"), ("place", "xy"))[:columns]:
        values = data.draw(st.lists(st.sampled_from(letters), min_size=n, max_size=n))
        least = {value: data.draw(small) for value in sorted(set(values))}
        quotas.append(by(values, least, {value: least[value] + data.draw(small) for value in least if data.draw(st.booleans())}, name))
    method = data.draw(st.sampled_from(sorted(SELECTORS)))
    possible = feasible(sizes, budget, room, quotas)
    try:
        found = select(method, make(data.draw(st.integers(0, 5)), n, sizes=sizes), Limits(budget, room), quotas)
    except InvalidInput:
        assert not possible
    else:
        assert tuple(sorted(found.indices.tolist())) in possible


def test_ten_thousand_values_with_a_minimum_take_seconds():
    values = np.array([f"folder {i % 10_000:05}" for i in range(200_000)], object)
    started = process_time()
    allowed = Allowance(len(values), np.zeros(len(values), bool), Limits(20_000), [Quota("folder", values, dict.fromkeys(set(values), 1))], None)
    assert process_time() - started < 20 and allowed.has_room(0)  # about .3 s; comparing each value with all rows took over a minute


@pytest.mark.parametrize("method", sorted(SELECTORS))
def test_a_budget_above_the_candidates_takes_all(method):
    assert sorted(select(method, make(0, 4), Limits(9)).indices.tolist()) == [0, 1, 2, 3]


def test_most_novel_takes_the_highest_and_the_unknown_last():
    candidates = Candidates(list("abcd"), np.eye(4, dtype=np.float32), np.array([0.1, np.nan, 0.9, 0.5]), np.zeros(4, bool))
    found = select("most_novel", candidates, Limits(4))
    assert found.indices.tolist() == [2, 3, 0, 1] and select("most_novel", candidates, Limits(3)).optimality_bound == 1.0


def test_unknown_novelty_counts_nothing_and_has_no_bound():
    candidates = Candidates(list("abcd"), np.eye(4, dtype=np.float32), np.array([0.1, np.nan, 0.9, 0.5]), np.zeros(4, bool))
    found = select("most_novel", candidates, Limits(4))
    assert found.objective == pytest.approx(1.5) and np.isnan(found.gains[3]) and np.isnan(found.optimality_bound)
    none = select("most_novel", Candidates(list("abc"), np.eye(3, dtype=np.float32), np.full(3, np.nan), np.zeros(3, bool)), Limits(3))
    assert none.objective == 0 and np.isnan(none.optimality_bound) and np.isnan(none.left).all()


@pytest.mark.parametrize("method", ["random", "stratified", "cluster_balanced"])
def test_another_seed_draws_others(method):
    draws = {tuple(sorted(select(method, make(0, 40), Limits(5), (), Options(seed)).indices.tolist())) for seed in range(5)}
    assert len(draws) == 5


def test_k_center_leaves_the_lonely_outlier_out():
    rng = np.random.default_rng(0)
    vectors = normalise(np.concatenate([rng.normal([5, 0, 0], 0.5, (39, 3)), [[-5, 0, 0]]]).astype(np.float32))
    candidates = Candidates([f"{i:02}" for i in range(40)], vectors, np.zeros(40), np.zeros(40, bool))
    found = select("k_center", candidates, Limits(10))
    assert 39 not in found.indices and 39 in found.set_aside


def test_k_center_tells_cosine_distances():
    same = Candidates(list("abc"), np.array([[1, 0]] * 3, np.float32), np.zeros(3), np.zeros(3, bool))
    found = select("k_center", same, Limits(2))
    assert found.objective == 0 and found.gains.tolist() == [2, 0] and found.left.tolist() == [0, 0, 0]
    two = Candidates(list("ab"), np.array([[1, 0], [0.8, 0.6]], np.float32), np.zeros(2), np.array([True, False]))
    assert select("k_center", two, Limits(1)).gains[0] == pytest.approx(0.2)


def test_k_center_does_not_set_aside_what_a_minimum_needs():
    rng = np.random.default_rng(0)
    vectors = normalise(np.concatenate([rng.normal([5, 0, 0], 0.5, (38, 3)), [[-5, 0, 1], [-5, 0, -1]]]).astype(np.float32))
    candidates = Candidates([f"{i:02}" for i in range(40)], vectors, np.zeros(40), np.zeros(40, bool))
    kinds = "c" * 38 + "rr"
    found = select("k_center", candidates, Limits(10), [by(kinds, {"r": 1})])
    assert len(found.indices) == 10 and len(set(found.indices.tolist()) & {38, 39}) == 1 and len(found.set_aside) == 1
    assert len(select("k_center", candidates, Limits(10)).set_aside) == 2
    with pytest.raises(InvalidInput, match="'r' should have at least 3, 2 are possible"):
        select("k_center", candidates, Limits(10), [by(kinds, {"r": 3})])


def test_a_selector_that_ends_before_the_minima_are_met_is_told_of_without_bytes_that_nobody_limited(monkeypatch):
    monkeypatch.setitem(SELECTORS, "none", lambda candidates, allowed, options: replace(select("random", candidates, Limits(0)), indices=np.zeros(0, np.int64)))
    with pytest.raises(InvalidInput, match=r"^Selector none ended before the minima of quotas were met: kind a: 0 of 1"):
        select("none", make(0, 4), Limits(3), [by("aabb", {"a": 1})])


def test_stratified_counts_the_members_that_are_there():
    # 100 of 200 A are members; of 100 more all are B, so that both have 100
    candidates = make(1, 400, "a" * 200 + "b" * 200, preselected=range(100))
    assert set(candidates.strata[select("stratified", candidates, Limits(100)).indices]) == {"b"}
    # 9 A are members, above their share of 6 of 18; b and c share the other 9 as 30 to 15
    candidates = make(1, 75, "a" * 30 + "b" * 30 + "c" * 15, preselected=range(9))
    share = candidates.strata[select("stratified", candidates, Limits(9)).indices].tolist()
    assert [share.count(name) for name in "abc"] == [0, 6, 3]


def test_stratified_rounds_by_the_largest_remainder():
    # of 10 members: 7.9, .8, .7 and .6; a gets 7 and one more, b and c one each
    candidates = make(1, 100, "a" * 79 + "b" * 8 + "c" * 7 + "d" * 6)
    share = candidates.strata[select("stratified", candidates, Limits(10)).indices].tolist()
    assert [share.count(name) for name in "abcd"] == [8, 1, 1, 0]


def test_a_quota_lets_the_other_strata_go_on_in_their_shares():
    candidates = make(1, 80, "a" * 40 + "b" * 20 + "c" * 20)
    found = candidates.strata[select("stratified", candidates, Limits(20), [by(candidates.strata, {}, {"a": 4})]).indices].tolist()
    assert [found.count(name) for name in "abc"] == [4, 8, 8]


def test_stratified_gives_each_value_its_share_or_as_many():
    candidates = make(1, 60, "a" * 30 + "b" * 20 + "c" * 10)
    share = [candidates.strata[row] for row in select("stratified", candidates, Limits(12)).indices]
    assert [share.count(name) for name in "abc"] == [6, 4, 2]
    equal = [candidates.strata[row] for row in select("stratified", candidates, Limits(12), (), Options(is_equal=True)).indices]
    assert [equal.count(name) for name in "abc"] == [4, 4, 4]


def clusters(sizes=(80, 15, 5)):
    rng = np.random.default_rng(1)
    rows = np.concatenate([rng.normal(np.eye(3)[i] * 6, 0.4, (size, 3)) for i, size in enumerate(sizes)])
    n, which = len(rows), np.repeat(np.arange(len(sizes)), sizes)
    order = rng.permutation(n)  # ids say nothing of clusters
    return Candidates([f"{i:03}" for i in range(n)], normalise(rows[order].astype(np.float32)), np.zeros(n), np.zeros(n, bool)), which[order]


def test_cluster_balanced_takes_as_many_of_the_small_cluster_as_of_the_large_one():
    candidates, which = clusters()
    found = select("cluster_balanced", candidates, Limits(12), (), Options(clusters=3))
    assert np.bincount(which[found.indices]).tolist() == [4, 4, 4]


def test_typical_takes_the_densest_of_each_cluster_the_largest_first():
    candidates, which = clusters()
    found = select("typical", candidates, Limits(3))
    assert which[found.indices].tolist() == [0, 1, 2]
    middle = candidates.vectors[which == 0].mean(axis=0)
    rank = np.argsort(-(candidates.vectors[which == 0] @ middle))
    assert np.flatnonzero(which == 0)[rank[:20]].tolist().count(found.indices[0]) == 1  # of 80 it is among the 20 nearest to the middle
