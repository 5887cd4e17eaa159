"""Recall counts ties as hits; its bound holds; ef is walked down and stops at the first failure."""

import numpy as np
import pytest

from discovery.core.recall import betting_lower_bound, choose_ef, recall_at_k
from discovery.errors import InvalidInput


def test_another_asset_at_the_same_distance_is_a_hit():
    assert recall_at_k(np.array([[0.1, 0.2]]), np.array([[0.1, 0.2]])).tolist() == [1.0]


def test_half_found_is_half():
    assert recall_at_k(np.array([[0.1, np.inf], [0.1, 0.3]]), np.array([[0.1, 0.2], [0.1, 0.2]])).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("shapes", [((1, 2), (1, 3)), ((1, 0), (1, 0))])
def test_other_shapes_are_refused(shapes):
    with pytest.raises(InvalidInput, match="two equal"):
        recall_at_k(np.zeros(shapes[0]), np.zeros(shapes[1]))


def test_the_bound_is_under_the_mean_and_tightens_with_more_draws():
    few, many = (betting_lower_bound(np.tile([1.0, 0.8], n)) for n in (25, 500))
    assert 0.7 < few < many < 0.9


@pytest.mark.parametrize("mean", [0.5, 0.9, 0.97])
def test_the_bound_is_wrong_in_no_more_than_delta_of_many_draws(mean):
    rng = np.random.default_rng(5)
    wrong = sum(betting_lower_bound(rng.binomial(10, mean, 100) / 10, delta=0.1) > mean for _ in range(300))
    assert wrong <= 30 + 3 * 5.2  # 10 % of 300, and three standard deviations of that count


@pytest.mark.parametrize("bad", [[1.1], [-0.1], [np.nan]])
def test_values_outside_the_unit_interval_are_refused(bad):
    with pytest.raises(InvalidInput):
        betting_lower_bound(np.array(bad))


def test_without_draws_nothing_is_known():
    assert betting_lower_bound(np.zeros(0)) == 0.0


def test_ef_is_walked_down_and_stops_at_the_first_failure():
    tried = []

    def measure(ef):
        tried.append(ef)
        return np.ones(500) if ef >= 64 else np.full(500, 0.5)

    choice = choose_ef((16, 512, 64, 32), measure, 0.95, 0.05)
    assert tried == [512, 64, 32] and choice.ef == 64 and choice.certified and choice.recall == 1.0


def test_when_the_largest_fails_it_is_returned_without_a_certificate():
    choice = choose_ef((16, 512), lambda ef: np.full(500, 0.9), 0.95, 0.05)
    assert (choice.ef, choice.certified) == (512, False) and choice.lower_bound < 0.9


def test_an_empty_grid_is_refused():
    with pytest.raises(InvalidInput):
        choose_ef((), lambda ef: np.ones(1), 0.9, 0.05)
