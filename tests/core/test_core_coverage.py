"""What a set lacks: known answers, and what is called lacking when nothing is."""

from __future__ import annotations

import numpy as np
import pytest

from discovery.core.coverage import coverage
from discovery.core.knn import exact_knn, normalise
from discovery.errors import EmptyReference, InvalidInput

OWN = np.arange(1, 100, dtype=np.float32) / 100  # .01 to .99


def nearest(queries: np.ndarray, references: np.ndarray) -> np.ndarray:
    return exact_knn(queries, references, 1)[1][:, 0]


def own(rows: np.ndarray) -> np.ndarray:
    names = [str(number) for number in range(len(rows))]
    return exact_knn(rows, rows, 1, query_ids=names, reference_ids=names)[1][:, 0]


def test_the_threshold_is_the_rank_that_a_new_row_passes_by_chance():
    # of 99 own distances the 90th smallest is .9; a hundredth lies above it in 10 of 100 cases
    found = coverage(np.array([0.9, 0.91], np.float32), OWN, 0.9)
    assert (found.threshold, found.is_lacking.tolist()) == (pytest.approx(0.9), [False, True])
    assert found.by_chance == pytest.approx(0.1) and found.share == 0.5


def test_a_small_set_has_its_largest_distance_as_threshold():
    found = coverage(np.array([0.2, 0.4], np.float32), np.array([0.1, 0.3, 0.2], np.float32), 0.99)
    assert found.threshold == pytest.approx(0.3) and found.by_chance == pytest.approx(1 / 4) and found.is_lacking.tolist() == [False, True]


def test_more_than_chance_needs_evidence():
    assert not coverage(np.array([2.0], np.float32), OWN, 0.9).is_more_than_chance  # one of one: at least 5 % for sure
    assert coverage(np.full(3, 2.0, np.float32), OWN, 0.9).is_more_than_chance  # three of three: at least .05 ** (1/3) = .37
    assert not coverage(np.zeros(0, np.float32), OWN, 0.9).is_more_than_chance and coverage(np.zeros(0, np.float32), OWN, 0.9).share == 0


@pytest.mark.parametrize("distances", [np.array([np.nan], np.float32)])
def test_nan_and_sets_of_one_are_refused(distances):
    with pytest.raises(InvalidInput):
        coverage(distances, OWN, 0.9)
    with pytest.raises(InvalidInput, match=r"usual = 1\.0"):
        coverage(OWN, OWN, 1.0)
    with pytest.raises(EmptyReference, match="1 members"):
        coverage(OWN, OWN[:1], 0.9)


def test_of_two_draws_from_one_distribution_as_many_lack_as_chance_says():
    rng = np.random.default_rng(5)
    shares, calls = [], []
    for _ in range(60):
        a, b = (normalise(rng.normal(size=(150, 8)).astype(np.float32)) for _ in range(2))
        found = coverage(nearest(a, b), own(b), 0.95)
        shares.append(found.share)
        calls.append(found.is_more_than_chance)
        assert found.by_chance == pytest.approx(1 - 144 / 151)
    assert np.mean(shares) == pytest.approx(1 - 144 / 151, abs=0.012)  # .046; the standard error is about .004
    assert np.mean(calls) <= 0.2  # the threshold is estimated as well, so somewhat over .05


def test_a_mode_that_b_lacks_is_what_is_called_and_not_the_reverse():
    rng = np.random.default_rng(7)
    centres = normalise(rng.normal(size=(3, 16)).astype(np.float32))

    def near(centre: int, count: int) -> np.ndarray:
        return normalise(centres[centre] + 0.1 * rng.normal(size=(count, 16)).astype(np.float32))

    a, b = np.concatenate([near(0, 60), near(1, 60), near(2, 20)]), np.concatenate([near(0, 60), near(1, 60)])
    lacking = coverage(nearest(a, b), own(b), 0.99)
    assert lacking.is_lacking[120:].all() and lacking.is_lacking[:120].sum() <= 5 and lacking.is_more_than_chance
    assert not coverage(nearest(b, a), own(a), 0.99).is_more_than_chance
