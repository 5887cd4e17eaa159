"""Products on the lattice are exact in float32, in any order; neighbours by blocks are those by all pairs, mostly; k-means is the same everywhere."""

import numpy as np
import pytest

from discovery.core.knn import normalise
from discovery.core.lattice import STEPS, WHOLE, cosine, cosine_distance, on_lattice, whole_similarity
from discovery.core.neighbour_graph import evenly, kmeans, neighbours_of
from discovery.core.sessions import device_sessions
from discovery.errors import InvalidInput


def clustered(n: int, d: int = 32, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(2, n // 50), d))
    return normalise((centres[rng.integers(0, len(centres), n)] + 0.7 * rng.normal(size=(n, d))).astype(np.float32))


@pytest.mark.parametrize("d", [2, 384, 1280, 4096])
def test_products_are_those_of_whole_numbers_whatever_the_order(d):
    rng = np.random.default_rng(d)
    rows = on_lattice(normalise(rng.normal(size=(64, d)).astype(np.float32)))
    steps = np.rint(rows * 4096).astype(np.int64)
    exact = steps @ steps.T
    order = rng.permutation(d)
    for found in (rows @ rows.T, rows[:, order] @ rows[:, order].T, np.stack([rows @ row for row in rows])):
        assert (np.rint(found.astype(np.float64) * 2**24) == exact).all() and (found.astype(np.float64) * 2**24 == exact).all()
    backwards = np.zeros((64, 64), np.float32)
    for column in reversed(range(d)):
        backwards += rows[:, [column]] * rows[:, column]
    assert (backwards.astype(np.float64) * 2**24 == exact).all()


def test_similarities_are_cosines_to_1e_3():
    vectors = clustered(300, 384)
    rows = on_lattice(vectors)
    true = np.maximum(vectors @ vectors.T, 0)
    assert np.abs(cosine(whole_similarity(rows @ rows.T)) - true).max() < 1e-3
    assert np.abs(cosine_distance(1 - rows @ rows.T) - (1 - vectors @ vectors.T).clip(0)).max() < 1e-3
    assert WHOLE == STEPS**2


def test_rows_that_are_too_long_are_refused():
    with pytest.raises(InvalidInput, match="length 1, found one of length 2"):
        on_lattice(np.array([[2.0, 0.0]], np.float32))
    with pytest.raises(InvalidInput, match="finite rows"):
        on_lattice(np.array([[np.nan, 0.0]], np.float32))


def test_blocks_find_most_neighbours_tell_how_many_and_never_a_wrong_similarity():
    vectors = clustered(6000)
    exact, blocks = neighbours_of(vectors, 8), neighbours_of(vectors, 8, exact_rows=100)
    assert exact.recall == 1.0 and 0.85 < blocks.recall < 1
    true = (blocks.similarity >= exact.similarity[:, -1:]).mean()
    assert blocks.recall == pytest.approx(true, abs=0.03)  # measured on 512 rows
    lattice = on_lattice(vectors)
    for row in evenly(6000, 50):
        places = blocks.rows[row]
        assert row not in places and len(set(places.tolist())) == 8
        assert whole_similarity(lattice[places] @ lattice[row]).tolist() == blocks.similarity[row].tolist()


def test_a_crowd_of_equal_rows_is_cut_without_end_to_the_recursion(monkeypatch):
    monkeypatch.setattr("discovery.core.neighbour_graph.LARGEST_BLOCK", 200)
    monkeypatch.setattr("discovery.core.neighbour_graph.BLOCK_ROWS", 100)
    vectors = np.repeat(clustered(2), [900, 100], axis=0)
    found = neighbours_of(vectors, 4, exact_rows=10)
    assert (found.similarity >= WHOLE * 0.999).all()


def test_the_graph_is_symmetric_and_holds_each_row_itself():
    covering = neighbours_of(clustered(200), 5).covering
    pairs = {(row, int(c)): int(s) for row in range(200) for c, s in zip(*(x[covering.starts[row] : covering.starts[row + 1]] for x in (covering.columns, covering.similarity)), strict=True)}
    assert all(pairs[b, a] == s for (a, b), s in pairs.items()) and all(pairs[row, row] == WHOLE for row in range(200))
    assert len(pairs) == len(covering.columns) >= 200 * 6


def test_centres_do_not_depend_on_the_order_of_the_rows():
    rows = on_lattice(clustered(500))
    first = evenly(500, 8)
    one = kmeans(rows, 8, first)
    order = np.random.default_rng(1).permutation(500)
    place = np.argsort(order)
    assert np.array_equal(kmeans(rows[order], 8, place[first]), one)


def test_a_pause_or_another_camera_ends_a_session():
    names = device_sessions(["A", "A", "B", "A", "A"], np.array([0.0, 1800.0, 900.0, 3601.0, np.nan]))
    assert names[0] == names[1] != names[3] and names[2] not in names[:2] and names[4] is None
