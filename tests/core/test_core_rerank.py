"""The second look: what it leaves alone, what it moves, and that the order of what it is given changes nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.core.knn import exact_knn, normalise
from discovery.core.rerank import alpha_query_expansion, database_augmentation, diversify, k_reciprocal_distances
from discovery.errors import InvalidInput


def unit(seed: int, n: int, d: int = 8) -> np.ndarray:
    return normalise(np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32))


def near(seed: int, n: int, d: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """A query, and n rows on its side of the sphere."""
    rng = np.random.default_rng(seed)
    query = unit(seed + 1000, 1, d)[0]
    return query, normalise((query + 0.6 * rng.normal(size=(n, d))).astype(np.float32))


def names(n: int) -> list[str]:
    return [f"{i * 7 % 1009:04}" for i in range(n)]


@given(seed=st.integers(0, 1000), k=st.integers(0, 30), alpha=st.floats(0, 20))
@settings(max_examples=60, deadline=None)
def test_no_neighbours_and_a_large_alpha_leave_the_query_alone_and_all_are_unit(seed, k, alpha):
    query, rows = near(seed, 20)
    assert alpha_query_expansion(query, rows, alpha, 0) == pytest.approx(query, abs=1e-6)
    assert alpha_query_expansion(query, rows[:0], alpha, k) == pytest.approx(query, abs=1e-6)
    assert alpha_query_expansion(query, rows, 1e6, k) == pytest.approx(query, abs=1e-5)
    assert np.linalg.norm(alpha_query_expansion(query, rows, alpha, k)) == pytest.approx(1, abs=1e-6)


def test_alpha_0_is_the_mean_of_the_query_and_its_k_nearest():
    query = np.array([1, 0], np.float32)
    rows = normalise(np.array([[1, 1], [0, 1], [1, 2]], np.float32))
    expected = normalise((query + rows[0])[None, :])[0]
    assert alpha_query_expansion(query, rows, 0.0, 1) == pytest.approx(expected, abs=1e-6)


def test_what_looks_away_weighs_nothing():
    query = np.array([1, 0], np.float32)
    assert alpha_query_expansion(query, np.array([[-1, 0], [0, 1]], np.float32), 0.0, 2).tolist() == [1.0, 0.0]


@given(order=st.permutations(range(20)), k=st.integers(0, 20))
@settings(max_examples=30, deadline=None)
def test_the_order_of_the_neighbours_does_not_move_the_query(order, k):
    query, rows = near(3, 20)
    assert (alpha_query_expansion(query, rows, 3.0, k) == alpha_query_expansion(query, rows[order], 3.0, k)).all()


def test_expansion_finds_the_members_of_a_chain_that_the_query_does_not_see():
    angles = np.radians([0, 35, 70, -50])  # of the query, two of its kind further and further, and a stranger
    query, one, two, stranger = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    rows = np.stack([one, two, stranger])
    assert (rows @ query).argsort()[::-1].tolist() == [0, 2, 1]
    moved = alpha_query_expansion(query, rows, 3.0, 1)
    assert (rows @ moved).argsort()[::-1].tolist() == [0, 1, 2]


def test_augmentation_of_a_row_is_expansion_of_it_as_a_query():
    vectors, ids = unit(4, 30), names(30)
    graph, _ = exact_knn(vectors, vectors, 5, query_ids=ids, reference_ids=ids)
    whole = database_augmentation(vectors, graph)
    expected = [alpha_query_expansion(row, vectors[graph[i]], 3.0, 5) for i, row in enumerate(vectors)]
    assert whole == pytest.approx(np.array(expected), abs=1e-6)
    some = np.array([7, 2, 19])
    assert (database_augmentation(vectors, graph[some], some) == whole[some]).all()  # a shortlist gives what the database gives


def test_a_row_without_neighbours_is_left_alone():
    vectors = unit(5, 4)
    moved = database_augmentation(vectors, np.array([[-1, -1], [2, -1], [-1, -1], [0, 1]]))
    assert moved[[0, 2]] == pytest.approx(vectors[[0, 2]], abs=1e-6) and not np.allclose(moved[[1, 3]], vectors[[1, 3]], atol=1e-3)


def kind_and_strangers(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A query with 12 of its kind at cosine .78, and 6 strangers at .8 whose own nearest are 14 others each; which rows are of its kind."""
    rng = np.random.default_rng(seed)

    def beside(row: np.ndarray, cosine: float, n: int) -> np.ndarray:
        noise = normalise(rng.normal(size=(n, 64)).astype(np.float32))
        noise = normalise(noise - (noise @ row)[:, None] * row)
        return (cosine * row + np.sqrt(1 - cosine**2) * noise).astype(np.float32)

    query = unit(seed + 1000, 1, 64)[0]
    strangers = beside(query, 0.8, 6)
    rows = np.concatenate([beside(query, 0.78, 12), strangers, *(beside(row, 0.9, 14) for row in strangers)])
    return query, rows, np.arange(len(rows)) < 12


@pytest.mark.parametrize("seed", range(5))
def test_those_that_have_the_query_among_their_nearest_come_before_nearer_strangers(seed):
    query, rows, is_kind = kind_and_strangers(seed)
    plain = np.argsort(1 - rows @ query, kind="stable")
    mutual = np.argsort(k_reciprocal_distances(query, rows, names(len(rows)), k2=3), kind="stable")
    assert is_kind[plain[:6]].sum() == 0 and is_kind[mutual[:6]].sum() >= 4


@given(order=st.permutations(range(30)), weight=st.sampled_from([0.0, 0.3, 1.0]))
@settings(max_examples=25, deadline=None)
def test_reciprocal_distances_are_in_0_to_1_and_follow_their_candidates(order, weight):
    query, rows = near(6, 30)
    ids = names(30)
    found = k_reciprocal_distances(query, rows, ids, k1=8, k2=3, weight=weight)
    assert found.dtype == np.float32 and (found >= 0).all() and (found <= 1).all()
    assert (k_reciprocal_distances(query, rows[order], [ids[i] for i in order], k1=8, k2=3, weight=weight) == found[order]).all()


def test_weight_1_keeps_the_order_of_plain_distances():
    query, rows = near(7, 25)
    found = k_reciprocal_distances(query, rows, names(25), weight=1.0)
    assert np.argsort(found).tolist() == np.argsort(1 - rows @ query).tolist() and found.max() == 1.0


def test_a_copy_of_the_query_stays_the_nearest_and_equals_are_fine():
    query, rows = near(8, 40)
    found = k_reciprocal_distances(query, np.concatenate([rows, query[None, :]]), names(41))
    assert found.argmin() == 40
    assert (k_reciprocal_distances(query, np.tile(query, (5, 1)), names(5)) < 1e-6).all()
    assert k_reciprocal_distances(query, rows[:0], []).shape == (0,)
    assert k_reciprocal_distances(query, rows[:1], ["a"]).shape == (1,)


@given(order=st.permutations(range(18)), count=st.integers(1, 25))
@settings(max_examples=30, deadline=None)
def test_variety_starts_at_the_nearest_repeats_nothing_and_does_not_depend_on_the_order(order, count):
    query, rows = near(9, 12)
    rows = np.concatenate([rows, rows[:6]])  # copies
    ids, distances = names(18), np.round(1 - rows @ query, 2)
    picked = diversify(distances, rows, ids, count)
    assert len(set(picked.tolist())) == len(picked) == min(count, 18)
    nearest = min(range(18), key=lambda row: (distances[row], ids[row]))
    assert picked[0] == nearest
    again = diversify(distances[order], rows[order], [ids[i] for i in order], count)
    assert [ids[row] for row in picked] == [ids[order[row]] for row in again]


def test_copies_collapse_until_nothing_else_is_left():
    query, others = near(10, 5)
    rows = np.concatenate([np.tile(others[0], (7, 1)), others[1:]])
    picked = diversify(1 - rows @ query, rows, names(11), 11)
    assert len([row for row in picked[:5] if row < 7]) == 1  # all five pictures that there are
    assert {*picked[5:].tolist()} <= set(range(7))


def test_variety_covers_the_clusters_that_the_nearest_miss():
    rng = np.random.default_rng(11)
    centres = normalise(np.eye(4, 6, dtype=np.float32) + 0.8)
    rows = normalise((np.repeat(centres, 10, axis=0) + 0.02 * rng.normal(size=(40, 6))).astype(np.float32))
    cluster = np.arange(40) // 10
    distances = 1 - rows @ normalise((centres[0] + centres.mean(axis=0))[None, :])[0]
    nearest = np.argsort(distances)[:4]
    assert len(set(cluster[nearest])) == 1 and len(set(cluster[diversify(distances, rows, names(40), 4)])) == 4


def test_what_does_not_fit_is_refused():
    query, rows = near(12, 5)
    ids = names(5)
    for call in (
        lambda: alpha_query_expansion(2 * query, rows),
        lambda: alpha_query_expansion(query[:3], rows),
        lambda: alpha_query_expansion(rows, rows),
        lambda: alpha_query_expansion(query, rows, alpha=-1.0),
        lambda: alpha_query_expansion(query, rows, k=-1),
        lambda: alpha_query_expansion(query, np.full((1, 8), np.nan, np.float32)),
        lambda: database_augmentation(rows, np.array([[5]] * 5)),
        lambda: database_augmentation(rows, np.array([[0]])),
        lambda: database_augmentation(rows, np.array([[0]]), np.array([-1])),
        lambda: k_reciprocal_distances(query, rows, ids[:4]),
        lambda: k_reciprocal_distances(query, rows, ["a"] * 5),
        lambda: k_reciprocal_distances(query, rows, ids, k1=0),
        lambda: k_reciprocal_distances(query, rows, ids, weight=1.5),
        lambda: diversify(np.zeros(4), rows, ids, 2),
        lambda: diversify(np.full(5, np.nan), rows, ids, 2),
        lambda: diversify(np.zeros(5), rows, ids, 0),
        lambda: diversify(np.zeros(5), 3 * rows, ids, 2),
    ):
        with pytest.raises(InvalidInput):
            call()
