"""Near copies: bits by hand, groups around a keeper that refuse chains, components that join them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.core.duplicates import cosine_pairs, group_duplicates, hamming_pairs, luma_correlation
from discovery.errors import InvalidInput


def hashes(*bits: int) -> np.ndarray:
    """Hashes of 256 bits with the first `bits` of them set."""
    return np.packbits([[1] * n + [0] * (256 - n) for n in bits], axis=1)


def test_hamming_distance_counts_bits():
    pairs, distances = hamming_pairs(hashes(0, 31, 63), 31)
    assert pairs.tolist() == [[0, 1]] and distances.tolist() == [31]  # 31-63 differ in 32, 0-63 in 63


@pytest.mark.parametrize("block", [1, 2, 7])
def test_blocks_find_the_same_pairs(block):
    data = np.random.default_rng(0).integers(0, 2, (20, 32), np.uint8)
    assert [a.tolist() for a in hamming_pairs(data, 12, block=block)] == [a.tolist() for a in hamming_pairs(data, 12)]


def test_ineligible_rows_take_no_part():
    pairs, _ = hamming_pairs(hashes(0, 0, 0), 0, np.array([True, False, True]))
    assert pairs.tolist() == [[0, 2]]


def test_hashes_of_an_odd_width_are_refused():
    with pytest.raises(InvalidInput):
        hamming_pairs(np.zeros((2, 31), np.uint8))


def test_cosine_at_the_threshold_counts():
    vectors = np.array([[1, 0], [0, 1], [1, 0]], np.float32)
    pairs, values = cosine_pairs(vectors, 1.0)
    assert pairs.tolist() == [[0, 2]] and values.tolist() == [1.0]
    assert cosine_pairs(vectors, 0.0)[0].tolist() == [[0, 1], [0, 2], [1, 2]]


def test_luma_correlates_one_with_itself_brighter_and_minus_one_with_its_negative():
    ramp = np.arange(0, 200, 10, dtype=np.uint8)
    luma = np.stack([ramp, ramp + 5, 200 - ramp])
    assert luma_correlation(luma, np.array([[0, 1], [0, 2]])).round(9).tolist() == [1.0, -1.0]


def test_a_flat_picture_is_like_an_equal_one_only():
    luma = np.array([[7] * 4, [7] * 4, [9] * 4, [0, 1, 2, 3]], np.uint8)
    assert luma_correlation(luma, np.array([[0, 1], [0, 2], [0, 3]])).tolist() == [1.0, 0.0, 0.0]


def test_a_chain_is_no_group_but_one_component():
    # a-b and b-c are copies, a-c is not; a is best, takes b; c is left alone, yet connected
    groups = group_duplicates(["a", "b", "c"], np.array([[3.0], [2.0], [1.0]]), np.array([[0, 1], [1, 2]]))
    assert groups.keeper.tolist() == [0, 0, 2]
    assert len(set(groups.component_index.tolist())) == 1


def test_the_better_picture_keeps_and_ties_go_to_the_smaller_id():
    pairs = np.array([[0, 1]])
    assert group_duplicates(["a", "b"], np.array([[1.0], [2.0]]), pairs).keeper.tolist() == [1, 1]
    assert group_duplicates(["b", "a"], np.array([[1.0], [1.0]]), pairs).keeper.tolist() == [1, 1]


@given(order=st.permutations(range(8)), links=st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=12))
@settings(max_examples=60, deadline=None)
def test_groups_do_not_depend_on_the_order_of_the_assets(order, links):
    ids, rank = list("abcdefgh"), np.array([[1.0], [2], [2], [3], [1], [1], [2], [3]])
    edges = sorted({(min(p), max(p)) for p in links if p[0] != p[1]})
    place = {old: new for new, old in enumerate(order)}

    def keepers(names, ranks, pairs):
        groups = group_duplicates(names, ranks, np.array(pairs, np.int64).reshape(-1, 2))
        by_component = {}
        for name, component in zip(names, groups.component_index.tolist(), strict=True):
            by_component.setdefault(component, set()).add(name)
        kept = {name: names[k] for name, k in zip(names, groups.keeper.tolist(), strict=True)}
        return kept, sorted(map(sorted, by_component.values()))

    assert keepers(ids, rank, edges) == keepers([ids[i] for i in order], rank[list(order)], [(place[a], place[b]) for a, b in edges])
