"""p-values with a floor, Benjamini-Hochberg by hand, and batches that moved as a whole."""

import numpy as np
import pytest

from discovery.core.conformal import benjamini_hochberg, calibration_mask, conformal_p_values, shift_test
from discovery.errors import InvalidInput


def test_the_smallest_p_is_one_over_calibration_rows_plus_one():
    assert conformal_p_values(np.arange(99, dtype=np.float32), np.array([1e9], np.float32)).tolist() == [0.01]


def test_a_tie_with_calibration_counts_against_novelty():
    # three of three are at least 1; one of three is at least 3
    assert conformal_p_values(np.array([1, 2, 3], np.float32), np.array([1, 3], np.float32)).tolist() == [1.0, 0.5]


@pytest.mark.parametrize(("calibration", "scores"), [([], [1]), ([np.nan], [1]), ([1], [np.nan])])
def test_no_calibration_and_nan_are_refused(calibration, scores):
    with pytest.raises(InvalidInput):
        conformal_p_values(np.array(calibration, np.float32), np.array(scores, np.float32))


def test_exchangeable_scores_have_p_at_most_t_with_probability_t():
    rng = np.random.default_rng(3)
    p = np.concatenate([conformal_p_values(*np.split(rng.normal(size=219).astype(np.float32), [199])) for _ in range(200)])
    assert (p <= 0.1).mean() < 0.115 and (p <= 0.5).mean() < 0.53


def test_benjamini_hochberg_by_hand():
    # sorted .01 .02 .03 .2 of n = 4: .01*4/1=.04, .02*4/2=.04, .03*4/3=.04, .2*4/4=.2
    assert benjamini_hochberg(np.array([0.2, 0.01, 0.03, 0.02])).round(9).tolist() == [0.2, 0.04, 0.04, 0.04]


def test_q_values_never_fall_when_p_grows_and_stay_under_one():
    q = benjamini_hochberg(np.array([0.9, 0.95, 1.0]))
    assert q.tolist() == [1.0, 1.0, 1.0] and benjamini_hochberg(np.zeros(0)).size == 0


def test_false_discoveries_stay_under_the_level():
    rng = np.random.default_rng(11)
    false_share = []
    for _ in range(200):
        calibration = rng.normal(size=500).astype(np.float32)
        scores = np.concatenate([rng.normal(size=90), rng.normal(6, 1, 10)]).astype(np.float32)
        called = benjamini_hochberg(conformal_p_values(calibration, scores)) <= 0.1
        false_share.append(called[:90].sum() / max(called.sum(), 1))
        assert called[90:].sum() >= 5
    assert np.mean(false_share) <= 0.1


def test_an_ordinary_batch_is_not_shifted_and_a_moved_one_is():
    rng = np.random.default_rng(1)
    ordinary, moved = shift_test(rng.uniform(size=200)), shift_test(rng.uniform(0, 0.05, 200))
    assert not ordinary.is_shifted and ordinary.null_fraction > 0.8
    assert moved.is_shifted and moved.null_fraction == 0.0
    assert moved.null_fraction_upper == pytest.approx(2 * (1 - 0.05 ** (1 / 200)), abs=1e-6)  # zero of 200, Clopper-Pearson


def test_four_rows_are_too_few_to_call_a_shift():
    assert not shift_test(np.full(4, 0.01)).is_shifted  # upper bound 2 * (1 - .05 ** (1/4)) = 1.05, cut at 1
    assert not shift_test(np.zeros(0)).is_shifted


def test_calibration_rows_depend_on_ids_and_salt_and_not_on_order():
    ids = [f"{i:03}" for i in range(50)]
    chosen = {i for i, out in zip(ids, calibration_mask(ids, 10, "s"), strict=True) if out}
    backwards = {i for i, out in zip(ids[::-1], calibration_mask(ids[::-1], 10, "s"), strict=True) if out}
    other = {i for i, out in zip(ids, calibration_mask(ids, 10, "t"), strict=True) if out}
    assert len(chosen) == 10 and chosen == backwards != other


def test_more_calibration_rows_than_rows_are_refused():
    with pytest.raises(InvalidInput, match="3 of 2"):
        calibration_mask(["a", "b"], 3, "s")
