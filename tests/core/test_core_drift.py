"""Drift of columns: known answers, rare values, what is missing, and how often equal sets are called moved."""

from __future__ import annotations

import numpy as np
import pytest

from discovery.core.columns import chi_square_p, holm, psi
from discovery.core.drift import NOT_SAID, compare, in_words, moved
from discovery.core.histogram import histogram
from discovery.errors import InvalidInput

EVEN = np.arange(100) / 100


def only(a, b, level: float = 0.05):
    (found,) = compare({"brightness": np.asarray(a)}, {"brightness": np.asarray(b)}, level)
    return found


def test_psi_by_hand():
    # 3 of 4 against 1 of 4, half a row added to each of two bins: shares .7 .3 and .3 .7; twice .4 * ln(7/3)
    assert psi(np.array([3, 1]), np.array([1, 3]))[0] == pytest.approx(2 * 0.4 * np.log(7 / 3))
    assert psi(np.array([5, 5, 0]), np.array([9, 9, 0])) == (0.0, pytest.approx(1 / 10 + 1 / 18))  # two bins are used


def test_what_chance_gives_is_what_equal_sets_give_on_average():
    rng = np.random.default_rng(4)
    values = [psi(*rng.multinomial(400, np.full(10, 0.1), 2))[0] for _ in range(400)]
    assert np.mean(values) == pytest.approx(9 * (1 / 400 + 1 / 400), rel=0.1)  # .045


def test_a_shifted_measure_by_hand():
    found = only(EVEN, EVEN + 0.255)
    assert found.distance == pytest.approx(0.26) and found.p_value < 0.01  # 26 of the first hundred lie under all of the second
    assert found.median_b - found.median_a == pytest.approx(0.255)
    assert found.shift == pytest.approx(0.255 / 0.495)  # of 0, .01, … .99 the quartiles are .2475 and .7425
    assert found.wasserstein == pytest.approx(0.255 / 0.495)  # every value moved by .255
    assert (found.spread, found.is_moved, in_words(found)) == (pytest.approx(1.0), True, "brighter")


def test_equal_columns_have_nothing_of_anything():
    found = only(EVEN, EVEN)
    assert (found.psi, found.effect, found.distance, found.p_value, found.shift, found.is_moved) == (0, 0, 0, 1, 0, False)


def test_a_column_that_only_spreads_is_moved_and_says_so():
    found = only(EVEN - 0.5, 3 * (EVEN - 0.5))
    assert found.is_moved and found.spread == pytest.approx(3.0) and in_words(found) == "brightness varies more"


def test_a_constant_is_told_from_what_lies_above_and_under_it():
    for other, word in ((0.2, "darker"), (0.8, "brighter")):
        found = only(np.full(60, 0.5), np.full(60, other))
        assert found.is_moved and found.distance == 1.0 and in_words(found) == word
    assert only(np.full(60, 0.5), np.full(60, 0.5)).psi == 0


def test_a_significant_trifle_is_not_called_moved():
    found = only(np.arange(40_000) / 40_000, np.arange(40_000) / 40_000 + 0.02)
    assert found.adjusted_p < 1e-6 and found.size == "hardly" and not found.is_moved


def test_a_large_psi_of_a_few_rows_is_not_called_moved():
    rng = np.random.default_rng(2)
    found = only(rng.normal(size=15), rng.normal(size=15))
    assert found.psi > 0.25 and found.psi_by_chance > 0.25 and not found.is_moved  # the rule of thumb would call it


def test_categories_by_hand():
    a, b = np.array(["X100"] * 80 + ["Z9"] * 20), np.array(["X100"] * 50 + ["Z9"] * 50)
    (found,) = compare({"camera": a}, {"camera": b})
    assert found.distance == pytest.approx(0.3) and found.is_moved and in_words(found) == "X100 80 % to 50 %"
    assert [(one.value, one.share_a, one.share_b) for one in found.changes] == [("X100", 0.8, 0.5), ("Z9", 0.2, 0.5)]


def test_values_of_which_each_row_has_another_move_nothing():
    a, b = np.array([f"a{i}" for i in range(50)]), np.array([f"b{i}" for i in range(50)])
    (found,) = compare({"serial": a}, {"serial": b})  # all are rare: the first against the 49 and 50 others
    assert found.psi < 0.05 and (found.p_value, found.is_moved) == (1, False)


def test_what_is_missing_counts_as_drift():
    with_nan = np.where(np.arange(100) < 60, np.nan, EVEN)
    found = only(EVEN, with_nan)
    assert (found.missing_a, found.missing_b) == (0, 0.6) and found.is_moved and in_words(found) == "not said of 0 % to 60 %"
    assert only(EVEN, np.full(100, np.nan)).is_moved
    (camera,) = compare({"camera": np.array(["X"] * 50, object)}, {"camera": np.array([None] * 50, object)})
    assert camera.is_moved and camera.missing_b == 1 and NOT_SAID in {one.value for one in camera.changes}


def test_moved_lists_the_most_moved_first_and_leaves_out_the_rest():
    a = {"contrast": EVEN, "brightness": EVEN, "entropy": EVEN}
    b = {"contrast": EVEN + 0.3, "brightness": EVEN - 0.9, "entropy": EVEN}
    assert [in_words(one) for one in moved(a, b)] == ["darker", "of more contrast"]
    assert [one.name for one in compare(a, b)] == ["brightness", "contrast", "entropy"]


def test_columns_of_one_set_alone_are_passed_over():
    assert [one.name for one in compare({"x": EVEN, "y": EVEN}, {"x": EVEN, "z": EVEN})] == ["x"]


@pytest.mark.parametrize(("a", "b", "said"), [({"x": EVEN[:0]}, {"x": EVEN}, "0 and 100"), ({"x": EVEN, "y": EVEN[:3]}, {"x": EVEN}, "one length")])
def test_empty_sets_and_ragged_columns_are_refused(a, b, said):
    with pytest.raises(InvalidInput, match=said):
        compare(a, b)


def test_columns_of_thirteen_are_compared_however_near_they_are():
    rng = np.random.default_rng(0)  # scipy's exact p-value comes out above 1 for some, with a warning
    assert all(0 <= only(rng.normal(size=13), rng.normal(size=13)).p_value <= 1 for _ in range(60))


def test_holm_never_falls_and_stays_under_one():
    assert holm([0.5, 0.001, 0.6]) == [1.0, 0.003, 1.0] and holm([]) == []


@pytest.mark.parametrize("rows", [(30, 40), (200, 150), (900, 1200)])
def test_equal_sets_are_called_at_most_as_often_as_the_level_says(rows):
    rng = np.random.default_rng(6)
    shares = np.array([0.5, 0.2, 0.1, 0.05, 0.05, 0.04, 0.03, 0.01, 0.01, 0.01])

    def columns(n: int) -> dict[str, np.ndarray]:
        return {
            "measure": rng.normal(size=n),
            "few values": rng.integers(0, 4, n),
            "camera": rng.choice(np.array(list("abcdefghij")), n, p=shares),
            "iso": np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n)),
        }

    called = [any(one.adjusted_p <= 0.1 for one in compare(columns(rows[0]), columns(rows[1]))) for _ in range(200)]
    assert np.mean(called) <= 0.15  # .1 and two standard errors of .021, and a little


def test_chi_square_of_a_rare_value_is_fishers_exact():
    # all five of one kind are in the smaller set: 1 / C(10, 5) = .004 one way, twice that
    assert chi_square_p(np.array([5, 0]), np.array([0, 5])) == pytest.approx(2 / 252)
    assert chi_square_p(np.array([7, 0]), np.array([9, 0])) == 1.0


def test_histograms_share_their_bins_and_hold_all_rows():
    found = histogram(EVEN, EVEN + 1, bins=4)
    assert found.edges[0] == pytest.approx(0.0099) and found.edges[-1] == pytest.approx(1.9801) and not found.is_log
    assert sum(found.share_a) == pytest.approx(1) and sum(found.share_b) == pytest.approx(1) and found.share_a[3] == 0 == found.share_b[0]
    assert histogram(np.geomspace(1, 1e4, 50), np.geomspace(1, 1e4, 50)).is_log
    assert histogram(np.full(3, 2.0), np.full(3, 2.0)).edges[0] == 1.5
