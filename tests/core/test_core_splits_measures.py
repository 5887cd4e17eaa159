"""Splits by group with exact sizes; measures of pictures one can see; expectations."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.core.expectations import failing_rows, row_expectations
from discovery.core.measures import MEASURES, measure_image, small_picture, small_rgb
from discovery.core.picture import whole_picture
from discovery.core.splits import grouped_splits, joining_rows, largest_remainder, merge_groups
from discovery.errors import InvalidInput

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def sizes(splits):
    return [splits.count(name) for name in SHARES]


def test_singletons_are_split_exactly():
    ids = [f"{i:03}" for i in range(100)]
    assert sizes(grouped_splits(ids, ids, SHARES, "s")) == [80, 10, 10]


def test_another_salt_splits_otherwise():
    ids = [f"{i:03}" for i in range(100)]
    assert grouped_splits(ids, ids, SHARES, "s") != grouped_splits(ids, ids, SHARES, "t")


@given(groups=st.lists(st.integers(0, 9), min_size=2, max_size=40), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_groups_stay_together_and_the_order_of_the_assets_does_not_matter(groups, seed):
    ids = [f"{i:03}" for i in range(len(groups))]
    splits = grouped_splits(ids, groups, SHARES, "s")
    assert all(len({s for s, g in zip(splits, groups, strict=True) if g == group}) == 1 for group in groups)
    order = np.random.default_rng(seed).permutation(len(ids))
    shuffled = grouped_splits([ids[i] for i in order], [groups[i] for i in order], SHARES, "s")
    assert dict(zip([ids[i] for i in order], shuffled, strict=True)) == dict(zip(ids, splits, strict=True))


def test_every_split_gets_its_share_of_every_value_and_sizes_stay_exact():
    ids = [f"{i:03}" for i in range(200)]
    kinds = ["a"] * 120 + ["b"] * 60 + ["c"] * 20
    splits = grouped_splits(ids, ids, SHARES, "s", strata=kinds)
    assert sizes(splits) == [160, 20, 20]
    held = [[sum(s == name and k == kind for s, k in zip(splits, kinds, strict=True)) for name in SHARES] for kind in "abc"]
    assert held == [[96, 12, 12], [48, 6, 6], [16, 2, 2]]
    plain = grouped_splits(ids, ids, SHARES, "s")
    assert [sum(s == "test" and k == kind for s, k in zip(plain, kinds, strict=True)) for kind in "abc"] != [12, 6, 2]


@given(
    groups=st.lists(st.integers(0, 9), min_size=2, max_size=40), kinds=st.lists(st.sampled_from("abc"), min_size=40, max_size=40), seed=st.integers(0, 99)
)
@settings(max_examples=60, deadline=None)
def test_strata_tear_no_group_apart_and_order_does_not_matter(groups, kinds, seed):
    ids, kinds = [f"{i:03}" for i in range(len(groups))], kinds[: len(groups)]
    splits = grouped_splits(ids, groups, SHARES, "s", strata=kinds)
    assert all(len({s for s, g in zip(splits, groups, strict=True) if g == group}) == 1 for group in groups)
    order = np.random.default_rng(seed).permutation(len(ids))
    shuffled = grouped_splits([ids[i] for i in order], [groups[i] for i in order], SHARES, "s", strata=[kinds[i] for i in order])
    assert [shuffled[np.flatnonzero(order == i)[0]] for i in range(len(ids))] == splits


@given(n=st.integers(1, 60), kinds=st.lists(st.sampled_from("abc"), min_size=60, max_size=60), held=st.integers(0, 60))
@settings(max_examples=80, deadline=None)
def test_sizes_of_singletons_are_exact_to_the_asset_also_when_a_version_grows(n, kinds, held):
    ids = [f"{i:03}" for i in range(n)]
    old = ids[: min(held, n)]
    before = dict(zip(old, grouped_splits(old, old, SHARES, "s", strata=kinds[: len(old)]), strict=True)) if old else {}
    splits = grouped_splits(ids, ids, SHARES, "s", fixed=before, strata=kinds[:n])
    assert all(splits[ids.index(asset_id)] == split for asset_id, split in before.items())
    wanted = dict(zip(("train", "test", "val"), largest_remainder([0.8, 0.1, 0.1], n), strict=True))
    assert Counter(splits) == Counter(wanted) or any(list(before.values()).count(name) > size for name, size in wanted.items())


@given(groups=st.lists(st.integers(0, 9), min_size=1, max_size=30), kinds=st.lists(st.sampled_from("abc"), min_size=30, max_size=30))
@settings(max_examples=60, deadline=None)
def test_the_order_in_which_splits_are_written_does_not_matter(groups, kinds):
    ids, kinds = [f"{i:03}" for i in range(len(groups))], kinds[: len(groups)]
    shares = {"a": 0.25, "b": 0.25, "train": 0.5}
    written = [dict(sorted(shares.items(), reverse=turned)) for turned in (False, True)]
    first, second = (grouped_splits(ids, groups, one, "s", strata=kinds) for one in written)
    assert first == second


def test_fixed_members_stay_and_take_their_group_along():
    splits = grouped_splits(["a", "b", "c", "d"], [0, 0, 1, 2], {"train": 0.5, "test": 0.5}, "s", fixed={"b": "test"})
    assert splits == ["test", "test", "train", "train"]


def test_a_group_with_members_fixed_in_two_splits_is_refused():
    with pytest.raises(InvalidInput, match="a and 1 others are one group, but are fixed in splits test, train"):
        grouped_splits(["a", "b", "c"], merge_groups(["f1", "f1", "f1"]), {"train": 0.5, "test": 0.5}, "s", fixed={"a": "train", "b": "test"})


@given(data=st.data(), n=st.integers(1, 30), columns=st.integers(1, 3))
@settings(max_examples=200, deadline=None)
def test_a_version_that_grows_moves_no_member_and_has_no_group_in_two_splits(data, n, columns):
    values = st.lists(st.lists(st.one_of(st.none(), st.integers(0, 6)), min_size=n, max_size=n), min_size=columns, max_size=columns)
    before, now = data.draw(values), data.draw(values)  # sessions are recut, copies are found later
    ids = [f"{i:03}" for i in range(n)]

    def groups(table, rows):
        return merge_groups(*([("alone", row) if column[row] is None else column[row] for row in rows] for column in [range(n), *table]))

    old = sorted(data.draw(st.sets(st.integers(0, n - 1))))
    was = dict(zip(old, grouped_splits([ids[row] for row in old], groups(before, old), SHARES, "s"), strict=True))
    smallest_first = sorted(old, key=lambda row: (SHARES[was[row]], was[row], row))
    rows = smallest_first + sorted(set(range(n)) - set(old))
    left = joining_rows([[column[row] for row in rows] for column in now], [was.get(row) for row in rows])
    assert all(now[column][rows[place]] == now[column][rows[place]] is not None and other < place for place, (other, column) in left.items())
    kept = sorted(row for place, row in enumerate(rows) if place not in left)
    fixed = {ids[row]: was[row] for row in kept if row in was}
    splits = dict(zip(kept, grouped_splits([ids[row] for row in kept], groups(now, kept), SHARES, "s", fixed=fixed), strict=True))
    assert all(splits[row] == split for row, split in was.items() if row in splits)
    for column in now:
        for value in set(column) - {None}:
            assert len({splits[row] for row in kept if column[row] == value}) <= 1
    if old:  # those of the smallest split stay
        assert {row for row in old if was[row] == was[smallest_first[0]]} <= set(kept)


@pytest.mark.parametrize("shares", [{}, {"train": 0.9}, {"train": 1.2, "test": -0.2}])
def test_shares_that_do_not_sum_to_one_are_refused(shares):
    with pytest.raises(InvalidInput, match="sum to 1"):
        grouped_splits(["a"], [0], shares, "s")


def test_a_fixed_split_that_does_not_exist_is_refused():
    with pytest.raises(InvalidInput, match="holdout"):
        grouped_splits(["a"], [0], SHARES, "s", fixed={"a": "holdout"})


def test_rows_merge_through_others():
    assert merge_groups(["x", "x", "y", "z"], [1, 2, 2, 3]) == [0, 0, 0, 3]


def checkerboard(side: int) -> np.ndarray:
    return (np.indices((side, side)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, axis=2)


def test_a_black_picture_is_all_clipped_flat_and_without_edges_and_has_else_only_zeros():
    black = measure_image(np.zeros((8, 8, 3), np.uint8))
    assert [black.pop(name) for name in ("clipped_fraction", "crushed_fraction", "flatness", "blur")] == [1.0] * 4
    assert set(black.values()) == {0.0} and len(black) == len(MEASURES) - 4


def test_a_checkerboard_is_half_bright_of_two_tones_and_sharp():
    board = measure_image(checkerboard(10))
    assert board["brightness"] == pytest.approx(0.5) and board["contrast"] == pytest.approx(0.5)
    assert board["entropy"] == pytest.approx(1.0) and board["saturation"] == 0.0
    assert board["sharpness"] == pytest.approx((4 * 255) ** 2)  # Laplacian is +1020 or -1020, as often


def test_green_is_brighter_than_red_and_red_than_blue():
    red, green, blue = (MEASURES["brightness"](whole_picture(np.eye(3, dtype=np.uint8)[None, [i]] * 255)) for i in range(3))
    assert (round(green, 4), round(red, 4), round(blue, 4)) == (0.7152, 0.2126, 0.0722)


def test_a_small_picture_keeps_left_and_right_and_its_colours():
    picture = np.zeros((30, 128, 3), np.uint8)
    picture[:, 64:] = (200, 40, 10)
    grid = small_rgb(small_picture(picture))
    assert grid[:, :31].max() == 0 and (grid[:, 33:] == [200, 40, 10]).all()
    # in the middle column left of the edge the triangle of 2 cells reaches one of 4 quarters into the right half
    assert grid[5, 31].tolist() == pytest.approx([25, 5, 1], abs=1)


def test_quarantine_names_what_each_picture_missed():
    columns = {
        "shorter_side_px": np.array([15.0, 16.0, 99.0, np.nan]),
        "aspect": np.array([1.0, 10.0, 10.5, 1.0]),
        "contrast": np.array([0.2, 0.01, 0.2, 0.0]),
    }
    failed = failing_rows(columns, row_expectations(16, 10.0, 0.01))
    assert {name: rows.tolist() for name, rows in failed.items()} == {
        "side_not_tiny": [True, False, False, True],
        "aspect_not_extreme": [False, False, True, False],
        "not_blank": [False, False, False, True],
    }
