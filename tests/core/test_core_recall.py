"""Recall counts ties as hits; its bound holds; ef is walked down and stops at the first failure."""

import numpy as np
import pytest

from discovery.core.recall import Stratum, betting_lower_bound, certificate, choose_ef, neighbourhood_sizes, recall_at_k, stratify
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


def all_of(n):
    return [Stratum("all", 1.0, np.arange(n))]


def test_ef_is_walked_down_and_stops_at_the_first_failure():
    tried = []

    def measure(ef):
        tried.append(ef)
        return np.ones(500) if ef >= 64 else np.full(500, 0.5)

    choice = choose_ef((16, 512, 64, 32), measure, all_of(500), 0.95, 0.05)
    assert tried == [512, 64, 32] and choice.ef == 64 and choice.certified and choice.recall == 1.0


def test_when_the_largest_fails_it_is_returned_without_a_certificate():
    choice = choose_ef((16, 512), lambda ef: np.full(500, 0.9), all_of(500), 0.95, 0.05)
    assert (choice.ef, choice.certified) == (512, False) and choice.lower_bound < 0.9


def test_an_empty_grid_is_refused():
    with pytest.raises(InvalidInput):
        choose_ef((), lambda ef: np.ones(1), all_of(1), 0.9, 0.05)
    with pytest.raises(InvalidInput):
        choose_ef((16,), lambda ef: np.ones(1), [], 0.9, 0.05)


def test_one_bad_stratum_is_not_hidden_by_the_average():
    recalls = np.concatenate([np.full(1000, 0.8), np.ones(9000)])
    strata = [Stratum("rare", 0.1, np.arange(1000)), Stratum("rest", 0.9, np.arange(1000, 10000))]
    found = certificate(64, recalls, strata, 0.95, 0.05)
    assert found.recall == pytest.approx(0.98) and not found.certified
    assert found.lower_bound == found.strata[0].lower_bound < 0.8 < found.strata[1].lower_bound
    assert certificate(64, recalls, all_of(10000), 0.95, 0.05).certified


def test_the_least_of_the_bounds_is_wrong_in_no_more_than_delta_of_many_draws():
    rng = np.random.default_rng(6)
    strata = [Stratum(str(number), 1 / 3, np.arange(100 * number, 100 * number + 100)) for number in range(3)]
    means = np.repeat([0.9, 0.9, 0.95], 100)
    wrong = sum(certificate(1, rng.binomial(10, means) / 10, strata, 0.5, 0.1).lower_bound > 0.9 for _ in range(200))
    assert wrong <= 20 + 3 * 4.3


def test_a_census_needs_no_bound():
    found = certificate(16, np.array([1.0, 0.9]), [Stratum("all", 1.0, np.arange(2), is_census=True)], 0.95, 0.05)
    assert found.lower_bound == found.recall == pytest.approx(0.95)


def test_neighbourhoods_of_planted_clusters_have_about_their_size():
    rng = np.random.default_rng(7)
    sizes = np.repeat([900, 90, 10], [900, 90, 10])
    centres = np.eye(8, dtype=np.float32)[np.repeat([0, 1, 2], [900, 90, 10])]
    vectors = centres + rng.normal(0, 0.02, centres.shape).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = rng.permutation(1000)
    found = neighbourhood_sizes(vectors[rows], rows, vectors, np.arange(1000), 1000)
    kinds = sizes[rows]
    assert found[kinds == 10].max() <= 11 and np.median(found[kinds == 900]) < 900
    strata = stratify(found, 50, is_whole=True)
    assert [(one.name, len(one.rows), one.is_census) for one in strata] == [("rare", 50, False), ("middle", 50, False), ("common", 50, False)]
    assert strata[0].smallest == 1 and strata[0].largest <= strata[1].largest <= strata[2].largest
    assert set(np.flatnonzero(kinds == 10)[:5]) <= set(strata[0].rows) or np.median(found[strata[0].rows]) <= 11


@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_strata_of_a_few_are_all_of_them(n):
    strata = stratify(np.arange(n), 50, is_whole=True)
    assert sorted(row for one in strata for row in one.rows) == list(range(n)) and all(one.is_census for one in strata)
    assert sum(one.share for one in strata) == pytest.approx(1)
