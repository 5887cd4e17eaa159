"""Recall of approximate search, a lower bound on it that holds, and the smallest search effort that reaches a target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from discovery.errors import InvalidInput

TOLERANCE = 1e-5  # float32 sums of about a thousand products differ by this much between two ways of adding them


def recall_at_k(
    found_distances: NDArray[np.float32], true_distances: NDArray[np.float32], tolerance: float = TOLERANCE
) -> NDArray[np.float64]:
    """Share of the k true neighbours that were found, for each query, counted by distance: ties are hits.

    Both (n, k), cosine distances; what was not found is inf. Returns (n,) in [0, 1]. Source: Aumüller et al., ann-benchmarks.

    >>> recall_at_k(np.array([[0.1, 0.4]]), np.array([[0.1, 0.2]])).tolist()
    [0.5]
    """
    if found_distances.shape != true_distances.shape or found_distances.ndim != 2 or found_distances.shape[1] == 0:
        raise InvalidInput(
            f"Expected two equal (n, k) arrays with k > 0, found {found_distances.shape} and {true_distances.shape}."
        )
    threshold = true_distances.max(axis=1, keepdims=True) + tolerance
    return np.asarray((found_distances <= threshold).mean(axis=1), np.float64)


def betting_lower_bound(values: NDArray[np.float64], delta: float = 0.05) -> float:
    """A number that the mean of the distribution exceeds with probability at least 1 - delta, for values in [0, 1].

    values: (n,) independent draws, in the order drawn. A gambler bets that the mean is above m; if his capital exceeds 1/delta, m is
    refused. The bound is the largest refused m. Source: Waudby-Smith and Ramdas 2024, "Estimating means of bounded random
    variables by betting", one-sided, predictable plug-in bets.

    >>> betting_lower_bound(np.ones(1000)) > 0.99
    True
    """
    x = np.asarray(values, np.float64)
    if x.size == 0:
        return 0.0
    if not np.isfinite(x).all() or x.min() < 0 or x.max() > 1:
        raise InvalidInput("Expected values in [0, 1].")
    count = np.arange(1, x.size + 1)
    mean = (0.5 + np.cumsum(x)) / (count + 1)
    variance = (0.25 + np.cumsum((x - mean) ** 2)) / (count + 1)
    earlier = np.concatenate([[0.25], variance[:-1]])  # a bet may use only what was drawn before
    bet = np.sqrt(2 * np.log(1 / delta) / (earlier * x.size))

    def is_refused(m: float) -> bool:
        # at most 1/2 of what could bankrupt him
        capital = np.cumsum(np.log1p(np.minimum(bet, 0.5 / m) * (x - m)))
        return bool(capital.max() >= np.log(1 / delta))

    low, high = 0.0, 1.0
    for _ in range(40):  # the capital falls as m grows, so bisection finds the edge
        middle = (low + high) / 2
        if is_refused(middle):
            low = middle
        else:
            high = middle
    return low


@dataclass(frozen=True, slots=True)
class EfChoice:
    """An ef, the mean recall measured at it, its lower bound, and whether the bound reaches the target."""

    ef: int
    recall: float
    lower_bound: float
    certified: bool


Bound = Callable[[NDArray[np.float64], float], float]


def census_bound(values: NDArray[np.float64], delta: float = 0.0) -> float:
    """The mean itself: when every member of the population was asked, nothing was sampled and nothing is uncertain."""
    return float(np.mean(values))


def choose_ef(
    grid: Sequence[int],
    measure: Callable[[int], NDArray[np.float64]],
    target: float,
    delta: float,
    bound: Bound = betting_lower_bound,
) -> EfChoice:
    """The smallest ef of the grid whose recall is certified, walking down from the largest and stopping at the first failure.

    measure: ef to (n,) recall of each query. bound: (recalls, delta) to a lower bound of their mean. Fixed-sequence testing keeps the error at delta although several ef are tried.
    When even the largest fails it is returned, not certified. Raises InvalidInput for an empty grid.
    """
    if not grid:
        raise InvalidInput("Expected at least one ef.")
    chosen: EfChoice | None = None
    for ef in sorted(set(grid), reverse=True):
        recall = measure(ef)
        lower = bound(recall, delta)
        step = EfChoice(ef, float(recall.mean()), lower, lower >= target)
        if not step.certified:
            return chosen or step
        chosen = step
    assert chosen is not None
    return chosen
