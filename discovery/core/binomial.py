"""Bounds on a share that was counted, and thresholds that keep a share above a bound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from discovery.errors import InvalidInput


def share_lower_bound(hits: int, trials: int, delta: float = 0.05) -> float:
    """A share that the true one exceeds with probability at least 1 - delta, after `hits` of `trials` independent draws.

    Source: Clopper and Pearson 1934, "The use of confidence or fiducial limits illustrated in the case of the binomial", one-sided.

    >>> share_lower_bound(0, 10), round(share_lower_bound(59, 59), 3)  # 0.95 ** 59 = .0485 < .05: the rule of three
    (0.0, 0.95)
    """
    if not 0 <= hits <= trials:
        raise InvalidInput(f"Expected 0 to {trials} hits, found {hits}.")
    from scipy.special import betaincinv

    return float(betaincinv(hits, trials - hits + 1, delta)) if hits else 0.0


def share_upper_bound(hits: int, trials: int, delta: float = 0.05) -> float:
    """A share that the true one is under with probability at least 1 - delta, after `hits` of `trials` independent draws.

    >>> share_upper_bound(10, 10), round(share_upper_bound(0, 59), 3)
    (1.0, 0.05)
    """
    return 1.0 - share_lower_bound(trials - hits, trials, delta)


@dataclass(frozen=True, slots=True)
class Threshold:
    """Pairs whose score is at most `value` are called the same. Bounds hold with a confidence of 95 % each, for pairs as were given."""

    value: float
    precision: float
    precision_lower_bound: float
    recall: float
    recall_lower_bound: float


def threshold_at(value: float, scores: NDArray[np.float64], is_same: NDArray[np.bool_], weights: NDArray[np.float64]) -> Threshold:
    """What one threshold is worth on labelled pairs.

    scores: (n,), smaller is more alike. is_same: (n,) labels. weights: (n,) how many pairs each stands for; equal ones for a plain sample,
    the stratum's pairs over those sampled for a stratified one. The bounds are those of as many plain draws as the weights are worth
    (Kish's effective sample size, rounded down). Raises InvalidInput without a pair of both kinds.
    """
    if not is_same.any() or is_same.all():
        raise InvalidInput("Labels of both kinds are needed: pairs that are the same and pairs that are not.")
    called = scores <= value
    precision, precision_bound = _weighted_share(is_same[called], weights[called])
    recall, recall_bound = _weighted_share(called[is_same], weights[is_same])
    return Threshold(float(value), precision, precision_bound, recall, recall_bound)


def choose_threshold(
    scores: NDArray[np.float64], is_same: NDArray[np.bool_], weights: NDArray[np.float64], min_precision: float = 0.99
) -> Threshold:
    """The largest threshold whose precision on labelled pairs is at least `min_precision`; the smallest score when none is.

    Arguments as of `threshold_at`; thresholds tried are the scores of pairs labelled the same. Copies that were planted and pictures known to be different
    are labelled pairs too.

    >>> found = choose_threshold(np.array([0.1, 0.2, 0.3]), np.array([True, True, False]), np.ones(3))
    >>> found.value, found.precision, found.recall
    (0.2, 1.0, 1.0)
    """
    tried = [threshold_at(value, scores, is_same, weights) for value in np.unique(scores[is_same])]
    if not tried:
        raise InvalidInput("Labels of both kinds are needed: pairs that are the same and pairs that are not.")
    good = [one for one in tried if one.precision >= min_precision]
    return good[-1] if good else tried[0]


def _weighted_share(hits: NDArray[np.bool_], weights: NDArray[np.float64]) -> tuple[float, float]:
    if not len(hits) or weights.sum() <= 0:
        return 0.0, 0.0
    share = float(weights[hits].sum() / weights.sum())
    effective = int(np.floor(weights.sum() ** 2 / (weights**2).sum() + 1e-9))
    return share, share_lower_bound(int(np.floor(share * effective + 1e-9)), effective)
