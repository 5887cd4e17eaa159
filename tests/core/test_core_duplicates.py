"""Near copies: bits by hand, pairs that do not depend on blocks, groups around a keeper that refuse chains, ids that stay."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.core.duplicates import (
    carry_group_ids,
    cosine_pairs,
    group_duplicates,
    hamming_pairs,
    turned_luma_pairs,
)
from discovery.core.grid import turned
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


def test_luma_is_found_in_all_eight_turns_and_brighter():
    grid = np.arange(16, dtype=np.uint8).reshape(4, 4) ** 2 // 2  # no turn of it is like itself
    for turn in range(8):
        luma = np.stack([grid.ravel(), turned(grid, turn).ravel() + 20])
        pairs, values = turned_luma_pairs(luma, 0.999)
        assert pairs.tolist() == [[0, 1]] and values.round(9).tolist() == [1.0], turn


def test_flat_and_unlike_pictures_are_no_pairs():
    luma = np.array([[7] * 4, [7] * 4, [0, 9, 9, 0], [9, 9, 0, 0]], np.uint8)
    assert turned_luma_pairs(luma, 0.9)[0].tolist() == []


def test_luma_that_is_no_square_is_refused():
    with pytest.raises(InvalidInput):
        turned_luma_pairs(np.zeros((2, 31), np.uint8), 0.9)


@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0, 1), block=st.sampled_from([1, 3, 64]))
@settings(max_examples=40, deadline=None)
def test_old_pairs_and_those_with_a_fresh_asset_are_all_pairs(seed, share, block):
    rng = np.random.default_rng(seed)
    fresh = rng.random(24) < share
    bits = rng.integers(0, 2, (24, 32), np.uint8)
    vectors = rng.normal(size=(24, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    luma = rng.integers(0, 4, (24, 9), np.uint8)
    for found in (
        lambda f: hamming_pairs(bits, 13, block=block, fresh=f),
        lambda f: cosine_pairs(vectors, 0.3, block, f),
        lambda f: turned_luma_pairs(luma, 0.6, block, f),
    ):
        pairs, values = found(None)
        with_fresh = fresh[pairs].any(axis=1)
        some, of_some = found(fresh)
        assert some.tolist() == pairs[with_fresh].tolist() and of_some.tolist() == values[with_fresh].tolist()


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
        linked = {frozenset((names[a], names[b])) for a, b in pairs}
        assert all(name == k or frozenset((name, k)) in linked for name, k in kept.items())  # no member is more than a link from it
        return kept, sorted(map(sorted, by_component.values()))

    assert keepers(ids, rank, edges) == keepers([ids[i] for i in order], rank[list(order)], [(place[a], place[b]) for a, b in edges])


def test_a_group_that_gets_a_better_keeper_keeps_its_id():
    assert carry_group_ids(["a", "b"], np.array([0, 0]), {}) == ["a", "a"]
    assert carry_group_ids(["a", "b", "c"], np.array([2, 2, 2]), {"a": "a", "b": "a"}) == ["a", "a", "a"]


def test_of_a_group_that_falls_apart_the_larger_part_keeps_the_id():
    earlier = dict.fromkeys("abcd", "a")
    assert carry_group_ids(["a", "b", "c", "d"], np.array([0, 1, 1, 1]), earlier) == [content_of("a"), "a", "a", "a"]


def content_of(name: str) -> str:
    from discovery.addressing import content_id

    return content_id(["duplicate group", name])


def test_of_groups_that_join_the_larger_one_names_both():
    earlier = {"a": "a", "b": "b", "c": "b"}
    assert carry_group_ids(["a", "b", "c"], np.array([0, 0, 0]), earlier) == ["b", "b", "b"]


@given(earlier=st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from("abcx")), keeper=st.lists(st.integers(0, 7), min_size=8, max_size=8))
@settings(max_examples=100, deadline=None)
def test_every_group_has_one_id_and_no_two_share_one(earlier, keeper):
    names = carry_group_ids(list("abcdefgh"), np.array(keeper), earlier)
    assert len(set(zip(keeper, names, strict=True))) == len(set(keeper)) == len(set(names))
