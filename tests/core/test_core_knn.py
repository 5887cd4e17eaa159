"""Exact neighbours: own row dropped by id, ties by id, blocks and order change nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.core.knn import exact_knn, normalise
from discovery.core.novelty import density_novelty, knn_novelty
from discovery.errors import EmptyReference, InvalidInput


def unit(seed: int, n: int, d: int = 8) -> np.ndarray:
    return normalise(np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32))


def test_neighbours_on_the_axes_have_the_distances_of_the_angles():
    references = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    rows, distances = exact_knn(np.array([[1, 0]], np.float32), references, 3)
    assert rows.tolist() == [[0, 1, 2]] and distances.tolist() == [[0.0, 1.0, 2.0]]


def test_own_row_is_dropped_by_id_even_when_a_copy_ranks_before_it():
    same = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    rows, distances = exact_knn(same, same, 2, query_ids=["a", "b", "c"], reference_ids=["a", "b", "c"])
    assert rows.tolist() == [[1, 2], [0, 2], [0, 1]]
    assert distances.tolist() == [[0, 1], [0, 1], [1, 1]]


def test_equal_distances_are_ordered_by_id():
    same = np.repeat(np.array([[1, 0]], np.float32), 4, axis=0)
    rows, _ = exact_knn(same[:1], same, 2, reference_ids=["d", "b", "c", "a"])
    assert rows.tolist() == [[3, 1]]  # "a", "b"


@pytest.mark.parametrize("block", [1, 3, 7, 50])
def test_blocks_give_what_one_block_gives(block):
    vectors, ids = unit(1, 50), [f"{i:03}" for i in range(50)]
    whole = exact_knn(vectors, vectors, 5, query_ids=ids, reference_ids=ids)
    parts = exact_knn(vectors, vectors, 5, query_ids=ids, reference_ids=ids, block=block)
    assert (whole[0] == parts[0]).all() and np.allclose(whole[1], parts[1], atol=1e-6)


@given(order=st.permutations(range(20)))
@settings(max_examples=25, deadline=None)
def test_the_order_of_the_references_does_not_matter(order):
    vectors, queries, ids = unit(2, 20), unit(3, 4), [f"{i:03}" for i in range(20)]
    rows, distances = exact_knn(queries, vectors, 6, reference_ids=ids)
    shuffled, same = exact_knn(queries, vectors[order], 6, reference_ids=[ids[i] for i in order])
    assert [[ids[i] for i in row] for row in rows] == [[ids[order[i]] for i in row] for row in shuffled]
    assert np.allclose(distances, same, atol=1e-6)


def test_k_is_lowered_to_what_there_is():
    assert exact_knn(unit(1, 2), unit(2, 3), 9)[0].shape == (2, 3)
    assert exact_knn(unit(1, 3), unit(1, 3), 9, query_ids=list("abc"), reference_ids=list("abc"))[0].shape == (3, 2)


def test_no_reference_is_said_and_not_guessed():
    with pytest.raises(EmptyReference, match="2 queries have no reference"):
        exact_knn(unit(1, 2), np.zeros((0, 8), np.float32), 3)
    with pytest.raises(EmptyReference):
        exact_knn(unit(1, 1), unit(1, 1), 3, query_ids=["a"], reference_ids=["a"])


@pytest.mark.parametrize(("width", "k"), [(7, 1), (8, 0)])
def test_other_widths_and_k_below_one_are_refused(width, k):
    with pytest.raises(InvalidInput, match="k >= 1 and equal widths"):
        exact_knn(unit(1, 2, width), unit(2, 3, 8), k)


@pytest.mark.parametrize("bad", [[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_normalise_names_the_bad_row(bad):
    with pytest.raises(InvalidInput, match=r"1 of 2 vectors .* row 1"):
        normalise(np.array([[3.0, 4.0], bad], np.float32))


def test_duplicate_of_a_reference_has_zero_novelty_and_a_stranger_has_more():
    references = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    queries = np.array([[1, 0, 0], [0, 0, 1]], np.float32)
    assert knn_novelty(exact_knn(queries, references, 1)[1]).tolist() == [0.0, 1.0]


def test_density_novelty_is_one_where_neighbours_are_as_far_as_theirs():
    assert density_novelty(np.array([[0.3, 0.5]], np.float32), np.array([[0.4, 0.4]], np.float32)).tolist() == [1.0]


@pytest.mark.parametrize("function", [knn_novelty, lambda d: density_novelty(d, d)])
def test_novelty_without_neighbours_is_refused(function):
    with pytest.raises(EmptyReference):
        function(np.zeros((2, 0), np.float32))
