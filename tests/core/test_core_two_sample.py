"""Two-sample tests: how often equal sets are told apart, what planted differences show, and known answers."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest

from discovery.core.two_sample import ClassifierTest, KernelTest, auc_interval, classifier_test, kernel_test, two_sample_p
from discovery.errors import InvalidInput


def normal(rng: np.random.Generator, rows: int, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return (scale * rng.normal(size=(rows, 6)) + shift * np.eye(6)[0]).astype(np.float32)


def nulls(test, times: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.array([test(normal(rng, 25), normal(rng, 40), 99, rng).p_value for _ in range(times)])


@pytest.mark.parametrize("test", [kernel_test, classifier_test])
def test_equal_sets_have_p_at_most_t_with_probability_t(test):
    p = nulls(test, 400, seed=1)
    # standard errors of the shares: .011, .02, .025
    assert (p <= 0.05).mean() <= 0.075 and (p <= 0.2).mean() <= 0.245 and 0.44 <= (p <= 0.5).mean() <= 0.56


def test_the_smallest_p_is_one_of_all_orders():
    rng = np.random.default_rng(0)
    a, b = normal(rng, 30), normal(rng, 30, shift=9)
    assert kernel_test(a, b, 199, rng).p_value == classifier_test(a, b, 199, rng).p_value == 1 / 200


def test_three_against_three_by_all_orders():
    # of the 20 ways to choose 3 of 6 points in two far clumps, 2 are as far apart as the clumps are: p is about .1
    rng = np.random.default_rng(2)
    a, b = np.array([[0], [0.1], [0.2]], np.float32), np.array([[5], [5.1], [5.2]], np.float32)
    extreme = sum(set(order[:3]) in ({0, 1, 2}, {3, 4, 5}) for order in permutations(range(6)))
    assert Fraction(extreme, 720) == Fraction(1, 10)
    assert kernel_test(a, b, 4999, rng).p_value == pytest.approx(0.1, abs=0.02)


def test_a_shift_is_seen_by_both():
    rng = np.random.default_rng(3)
    a, b = normal(rng, 100), normal(rng, 80, shift=1.0)
    # one unit apart: the best AUC is Phi(1 / sqrt 2) = .76
    found = classifier_test(a, b, 199, rng)
    assert found.low < 0.76 < found.high and found.low > 0.6 and found.p_value == 1 / 200
    assert kernel_test(a, b, 199, rng).p_value == 1 / 200


def test_a_difference_in_spread_is_seen_by_the_kernel_alone():
    rng = np.random.default_rng(4)
    a, b = normal(rng, 150), normal(rng, 150, scale=1.8)
    assert kernel_test(a, b, 199, rng).p_value == 1 / 200
    assert classifier_test(a, b, 199, rng).auc == pytest.approx(0.5, abs=0.1)  # a plane cannot part them


def test_a_rare_mode_is_seen_at_the_small_bandwidths():
    rng = np.random.default_rng(6)
    a, b = normal(rng, 200, scale=1), normal(rng, 200, scale=1)
    b[:24] = 3 + 0.05 * b[:24]
    assert kernel_test(a, b, 199, rng).p_value <= 0.01


def test_sets_far_apart_are_always_told_and_the_interval_does_not_vanish():
    rng = np.random.default_rng(5)
    found = classifier_test(normal(rng, 40), normal(rng, 60, shift=30), 99, rng)
    assert found.auc == found.high == 1.0 and 0.85 < found.low < 1.0
    assert found.towards_b[:40].max() < found.towards_b[40:].min() and found.towards_b.shape == (100,)


def test_the_interval_holds_one_half_when_nothing_differs():
    rng = np.random.default_rng(8)
    found = [classifier_test(normal(rng, 30), normal(rng, 45), 99, rng) for _ in range(200)]
    assert np.mean([one.low <= 0.5 <= one.high for one in found]) >= 0.92  # without widening about .85


def test_the_interval_of_an_auc_by_hand():
    # at .5 the variance is .25 (1 + 99 (1/3 + 1/3)) / 10,000 = .0409 ** 2; the interval of the score test is a little narrower than 1.96 of it
    low, high = auc_interval(0.5, 100, 100)
    assert (low, high) == (pytest.approx(0.4210, abs=1e-4), pytest.approx(1 - low))
    low, _ = auc_interval(0.9, 50, 50)
    error = (low * (1 - low) * (1 + 49 * ((1 - low) / (2 - low) + low / (1 + low))) / 2500) ** 0.5
    assert 0.9 - low == pytest.approx(1.96 * error)  # the end's own standard error reaches to .9


def test_wide_vectors_of_few_rows_are_solved_like_narrow_ones():
    rng = np.random.default_rng(9)
    a, b = normal(rng, 30), normal(rng, 30, shift=1)
    padded = [np.concatenate([one, np.zeros((30, 200), np.float32)], axis=1) for one in (a, b)]
    narrow, wide = classifier_test(a, b, 9, np.random.default_rng(1)), classifier_test(*padded, 9, np.random.default_rng(1))
    assert wide.auc == narrow.auc and np.allclose(wide.towards_b, narrow.towards_b)


def test_equal_vectors_differ_in_nothing():
    rng = np.random.default_rng(0)
    same = np.ones((20, 3), np.float32)
    assert kernel_test(same, same, 99, rng).p_value == 1.0
    found = classifier_test(same, same, 99, rng)
    assert (found.auc, found.p_value) == (0.5, 1.0)


def test_the_same_seed_gives_the_same_result():
    a, b = normal(np.random.default_rng(1), 20), normal(np.random.default_rng(2), 20)
    first, second = (kernel_test(a, b, 99, np.random.default_rng(3)) for _ in range(2))
    assert first == second


def test_two_looks_are_paid_for():
    classifier = ClassifierTest(0.7, 0.6, 0.8, 0.3, np.zeros(0))
    assert two_sample_p(KernelTest(0.02, 1.0), classifier) == 0.04 and two_sample_p(KernelTest(0.9, 1.0), classifier) == 0.6
    assert two_sample_p(KernelTest(0.9, 1.0), ClassifierTest(0.5, 0.4, 0.6, 0.8, np.zeros(0))) == 1.0


@pytest.mark.parametrize(("a", "b", "count"), [((9, 3), (10, 3), 99), ((10, 3), (10, 4), 99), ((10, 3), (10, 3), 0)])
def test_too_few_rows_other_widths_and_no_permutation_are_refused(a, b, count):
    with pytest.raises(InvalidInput, match="at least 10 vectors"):
        classifier_test(np.ones(a, np.float32), np.ones(b, np.float32), count, np.random.default_rng(0))
    with pytest.raises(InvalidInput, match="at least 2 vectors"):
        kernel_test(np.ones((1, 3), np.float32), np.ones(b, np.float32), 99, np.random.default_rng(0))
