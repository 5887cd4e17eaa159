"""p-values with a floor, Benjamini-Hochberg by hand, and batches that moved as a whole."""

import numpy as np
import pytest

from discovery.core.conformal import (
    benjamini_hochberg,
    calibration_size,
    conditional_p_values,
    conformal_p_values,
    contamination,
    least_discoveries,
    shift_test,
)
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


def normal(rng, n, mean=0.0):
    return rng.normal(mean, 1, n).astype(np.float32)


def test_an_ordinary_batch_is_not_shifted_and_one_that_left_is():
    rng = np.random.default_rng(1)
    ordinary, left = shift_test(normal(rng, 2000), normal(rng, 200)), shift_test(normal(rng, 2000), normal(rng, 200, 9))
    assert not ordinary.is_shifted and ordinary.null_fraction > 0.8
    assert left.is_shifted and left.null_fraction == 0.0
    assert left.null_fraction_upper == pytest.approx(2 * (1 - 0.05 ** (1 / 200)), abs=1e-6)  # zero of 200, Clopper-Pearson


def test_four_rows_are_too_few_to_call_a_shift():
    usual = normal(np.random.default_rng(0), 500)
    assert not shift_test(usual, np.full(4, 9, np.float32)).is_shifted  # upper bound 2 * (1 - .05 ** (1/4)) = 1.05, cut at 1
    assert not shift_test(usual, np.zeros(0, np.float32)).is_shifted


def test_what_is_new_in_a_batch_is_no_shift_and_a_small_step_of_all_is():
    """Both batches have about as many small p-values; only the second breaks the promise."""
    rng = np.random.default_rng(2)
    called = {"new": 0, "step": 0, "ordinary": 0}
    for _ in range(100):
        usual = normal(rng, 2000)
        called["new"] += shift_test(usual, np.concatenate([normal(rng, 800), normal(rng, 200, 5)])).is_shifted
        called["step"] += shift_test(usual, normal(rng, 1000, 0.4)).is_shifted
        called["ordinary"] += shift_test(usual, normal(rng, 1000)).is_shifted
    assert called["new"] <= 5 and called["ordinary"] <= 5  # level 1 %: over 5 of 100 has a chance under .001
    assert called["step"] >= 95


def test_a_shifted_batch_would_break_the_promise_and_is_withheld():
    """ALGORITHMS section 4: all of a batch a bit farther off. Every discovery is false, so the false share of a batch is 0 or 1."""
    rng = np.random.default_rng(3)
    unguarded, guarded = [], []
    for _ in range(100):
        usual, batch = normal(rng, 1000), normal(rng, 1000, 0.7)
        called = (benjamini_hochberg(conformal_p_values(usual, batch)) <= 0.1).any()
        unguarded.append(called)
        guarded.append(called and not shift_test(usual, batch).is_shifted)
    assert np.mean(unguarded) > 0.2 and np.mean(guarded) == 0.0


def test_self_matches_in_the_calibration_break_the_promise():
    """What the stage prevents: were held-out rows among the references, each would find itself at distance 0."""
    from discovery.core.knn import exact_knn, normalise
    from discovery.core.novelty import knn_novelty

    rng = np.random.default_rng(4)
    rows = normalise(rng.normal(size=(900, 16)).astype(np.float32))
    references, usual, batch = rows[:400], rows[400:600], rows[600:]
    asked = knn_novelty(exact_knn(batch, references, 1)[1])
    sound = knn_novelty(exact_knn(usual, references, 1)[1])
    unsound = knn_novelty(exact_knn(usual, np.concatenate([references, usual]), 1)[1])
    assert (benjamini_hochberg(conformal_p_values(unsound, asked)) <= 0.1).mean() > 0.9  # all of an ordinary batch
    assert (benjamini_hochberg(conformal_p_values(sound, asked)) <= 0.1).mean() < 0.01


def test_a_fixed_percentile_is_mostly_wrong_where_novelty_is_rare():
    rng = np.random.default_rng(5)
    usual, batch = normal(rng, 2000), np.concatenate([normal(rng, 1980), normal(rng, 20, 6)])
    alarms = batch > np.quantile(usual, 0.95)
    assert alarms[:1980].sum() / alarms.sum() > 0.75
    called = benjamini_hochberg(conformal_p_values(usual, batch)) <= 0.1
    assert called[1980:].sum() >= 15 and called[:1980].sum() / called.sum() < 0.3


def test_one_calibration_set_that_is_used_again_and_again_can_be_unlucky_and_adjusted_p_values_are_not():
    """For each of 300 sets the share of ordinary assets under a p-value is known exactly: 1 - Phi(threshold)."""
    from scipy.stats import norm

    rng = np.random.default_rng(6)
    c, delta, grid = 500, 0.1, np.array([0.01, 0.05, 0.1, 0.3])
    broken = {"marginal": 0, "set": 0}
    for _ in range(300):
        usual = np.sort(normal(rng, c))[::-1]
        p = conformal_p_values(usual, usual)  # at each calibration score
        tail = norm.sf(usual.astype(np.float64))  # P(an ordinary asset is as novel)
        for name, values in (("marginal", p), ("set", conditional_p_values(p, c, delta))):
            broken[name] += any(tail[values <= t].max(initial=0.0) > t for t in grid)
    assert broken["marginal"] > 150 and broken["set"] <= delta * 300 + 3 * np.sqrt(300 * delta * (1 - delta))


def test_adjusted_p_values_are_larger_in_the_same_order():
    p = conformal_p_values(np.arange(200, dtype=np.float32), np.array([-1, 50, 150, 190, 199, 300], np.float32))
    adjusted = conditional_p_values(p, 200, 0.1)
    assert (adjusted >= p).all() and (np.diff(adjusted) <= 0).all() and adjusted[0] == 1.0
    with pytest.raises(InvalidInput, match="two calibration rows"):
        conditional_p_values(p, 1, 0.1)


def test_contaminated_calibration_hides_discoveries_and_says_so():
    rng = np.random.default_rng(7)
    usual, batch = np.exp(normal(rng, 1000) / 5), np.concatenate([np.exp(normal(rng, 490) / 5), np.full(10, 9.0, np.float32)])
    junk = np.full(30, 20, np.float32)
    clean, dirty = contamination(usual, batch, 0.1), contamination(np.concatenate([usual, junk]), batch, 0.1)
    assert len(clean.rows) == 0 == clean.hidden
    assert sorted(dirty.rows.tolist()) == list(range(1000, 1030)) and dirty.hidden >= 10
    assert not (benjamini_hochberg(conformal_p_values(np.concatenate([usual, junk]), batch)) <= 0.1).any()


def test_far_out_rows_that_hide_nothing_are_no_reason_to_look():
    rng = np.random.default_rng(8)
    usual = np.concatenate([np.exp(normal(rng, 1000) / 5), np.full(3, 20, np.float32)])
    found = contamination(usual, np.exp(normal(rng, 500) / 5), 0.1)
    assert len(found.rows) == 3 and found.hidden == 0


@pytest.mark.parametrize(("references", "held_out"), [(10, 5), (4000, 2000), (12_000, 2000), (30_000, 3000), (1_000_000, 10_000)])
def test_half_of_few_and_a_tenth_of_many_are_held_out(references, held_out):
    assert calibration_size(references, 10_000) == held_out


def test_how_many_it_takes_at_once():
    # of 1,000 candidates with 200 calibration rows: R with R * 0.1 / 1000 >= 1 / 201, R >= 49.75
    assert least_discoveries(1000, 1 / 201, 0.1) == 50
    usual, batch = np.zeros(200, np.float32), np.zeros(1000, np.float32)
    for new in (49, 50):
        batch[:new] = 1
        assert (benjamini_hochberg(conformal_p_values(usual, batch)) <= 0.1).any() == (new == 50)
