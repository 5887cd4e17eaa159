"""Bounds on shares, and thresholds from labelled pairs."""

import numpy as np
import pytest

from discovery.core.binomial import choose_threshold, share_lower_bound, threshold_at
from discovery.core.duplicate_calibration import calibrate_cosine
from discovery.errors import InvalidInput


def test_the_bound_solves_the_binomial_tail():
    # 9 or 10 of 10 at share s: s**10 + 10 * s**9 * (1 - s) = .05 at s = .6058
    assert share_lower_bound(9, 10) == pytest.approx(0.6058, abs=1e-4)
    assert share_lower_bound(10, 10) == pytest.approx(0.05 ** (1 / 10), abs=1e-9)
    assert share_lower_bound(0, 0) == 0.0


def test_the_bound_holds_at_least_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = rng.binomial(50, 0.9, 2000)
    assert np.mean([share_lower_bound(int(h), 50) <= 0.9 for h in hits]) >= 0.95


def test_more_hits_than_trials_are_refused():
    with pytest.raises(InvalidInput):
        share_lower_bound(3, 2)


def test_a_threshold_is_worth_what_the_labels_say():
    scores, same = np.array([0.0, 0.1, 0.2, 0.3]), np.array([True, True, False, True])
    found = threshold_at(0.2, scores, same, np.ones(4))
    assert (found.precision, found.recall) == (2 / 3, 2 / 3)
    assert found.precision_lower_bound == share_lower_bound(2, 3)
    weighted = threshold_at(0.2, scores, same, np.array([1.0, 1.0, 2.0, 6.0]))  # the false one stands for 2, the missed one for 6
    assert (weighted.precision, weighted.recall) == (0.5, 0.25)


def test_the_largest_threshold_that_is_precise_enough_is_chosen():
    scores = np.array([0.01, 0.02, 0.03, 0.04, 0.05])
    same = np.array([True, True, False, True, False])
    assert choose_threshold(scores, same, np.ones(5), 0.99).value == 0.02
    assert choose_threshold(scores, same, np.ones(5), 0.7).value == 0.04  # 3 of 4


def test_labels_of_one_kind_say_nothing():
    with pytest.raises(InvalidInput):
        choose_threshold(np.array([0.1]), np.array([True]), np.ones(1))


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def themes(rng: np.random.Generator, n: int) -> np.ndarray:
    """Four strong dimensions that many pictures share, 28 weak ones that tell them apart."""
    return np.concatenate([rng.normal(size=(n, 4)), 0.1 * rng.normal(size=(n, 28))], axis=1)


def test_a_calibration_finds_the_wanted_share_of_copies_among_few_proposals():
    rng = np.random.default_rng(1)
    pictures = themes(rng, 600)
    edits = np.concatenate([0.2 * rng.normal(size=(200, 4)), np.zeros((200, 28))], axis=1)  # an edit moves the theme
    library, copies = unit(pictures), unit(pictures[:200] + edits)
    found = calibrate_cosine(library, library[:200], copies, recall=0.97)
    assert 0.97 <= found.recall <= 0.985 and found.recall_lower_bound < found.recall
    white = found.projection(library)
    pairs = (white @ white.T)[np.triu_indices(600, 1)]
    assert found.proposals_per_asset == pytest.approx((pairs >= found.threshold).sum() / 600, rel=1e-3, abs=0.01)
    plain = np.sort((library[:200] * copies).sum(axis=1))[6]  # the same recall without whitening
    proposed = ((library @ library.T)[np.triu_indices(600, 1)] >= plain).sum() / 600
    assert proposed > 0.5 > 0.1 > found.proposals_per_asset


def test_a_calibration_proposes_no_more_than_is_allowed():
    rng = np.random.default_rng(2)
    library, strangers = unit(themes(rng, 400)), unit(themes(rng, 50))
    found = calibrate_cosine(library, library[:50], strangers, most_proposals=0.5)
    assert found.proposals_per_asset <= 0.75 and found.recall < 0.2


def test_a_small_library_cannot_be_calibrated_on():
    with pytest.raises(InvalidInput):
        calibrate_cosine(unit(themes(np.random.default_rng(0), 50)), np.zeros((1, 32), np.float32), np.zeros((1, 32), np.float32))
