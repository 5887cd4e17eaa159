"""Recall of approximate search, a lower bound on it that holds, and the smallest search effort that reaches a target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from discovery.errors import InvalidInput
from discovery.types import StratumRecall

BOLDEST = 0.75  # share of the capital that a bet may put at risk
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
    variables by betting", one-sided, predictable plug-in bets. The guarantee holds for any BOLDEST below 1. Of the two that the authors name, 3/4 comes
    nearer to a mean close to 1 than 1/2; .9 is too bold where some queries miss all neighbours, as in real graphs.

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
        capital = np.cumsum(np.log1p(np.minimum(bet, BOLDEST / m) * (x - m)))
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
class Stratum:
    """Queries that are judged by themselves. rows: their places among all queries; share: of the population that they stand for.

    is_census: the queries are that whole part of the population, so that nothing was sampled. smallest, largest: how many members their
    neighbourhoods hold, estimated.
    """

    name: str
    share: float
    rows: NDArray[np.int64]
    is_census: bool = False
    smallest: int = 0
    largest: int = 0


@dataclass(frozen=True, slots=True)
class Certificate:
    """An ef and what was shown of it. recall: the population's, estimated; lower_bound: of the recall of *each* stratum, and so of all.

    certified: the bound reaches the target.
    """

    ef: int
    recall: float
    lower_bound: float
    certified: bool
    strata: tuple[StratumRecall, ...]


STRATA = (("rare", 0.1), ("middle", 0.4), ("common", 0.5))  # names and shares of the population, smallest neighbourhoods first
NEAR = 5  # the radius of a neighbourhood is the median distance to the fifth nearest of the references


def neighbourhood_sizes(
    queries: NDArray[np.float32], query_rows: NDArray[np.int64], references: NDArray[np.float32], reference_rows: NDArray[np.int64],
    population: int, block: int = 2048,
) -> NDArray[np.int64]:  # fmt: skip
    """How many of a population lie about as near to each query as is usual: small for rare and lone members, large for common ones.

    queries (n, d) and references (r, d): unit rows, drawn from the population of that size; *_rows: which member each is, so that none
    counts itself. The radius is the median over the queries of the distance to their NEAR-th nearest reference; what is within it is
    counted and scaled to the population. Returns (n,) int64, at least 1 (the query). Memory: n * r floats.
    """
    n, r = len(queries), len(references)
    if r < 2 or n == 0:
        return np.ones(n, np.int64)
    distances = np.empty((n, r), np.float32)
    near = np.empty(n, np.float32)
    order = np.argsort(reference_rows)
    place = order[np.minimum(np.searchsorted(reference_rows, query_rows, sorter=order), r - 1)]
    own = np.flatnonzero(reference_rows[place] == query_rows)
    distances[:] = 1.0
    kth = min(NEAR, r - 1) - 1
    for start in range(0, n, block):
        part = slice(start, start + block)
        distances[part] -= queries[part] @ references.T
    distances[own, place[own]] = np.inf
    for start in range(0, n, block):
        near[start : start + block] = np.partition(distances[start : start + block], kth, axis=1)[:, kth]
    inside = (distances <= float(np.median(near)) + TOLERANCE).sum(axis=1)
    return np.asarray(1 + np.round(inside * (population / r)), np.int64)


def stratify(
    sizes: NDArray[np.int64], most: int, is_whole: bool, shares: Sequence[tuple[str, float]] = STRATA
) -> list[Stratum]:
    """Strata of a random pool by the size of neighbourhoods, `most` members of each, the first in the order of the pool.

    sizes: (n,), in the random order in which the pool was drawn, which also orders equal sizes. is_whole: the pool is the whole population, so that
    a stratum that is taken whole is a census. Strata that would be empty are left out.
    """
    order = np.argsort(sizes, kind="stable")
    bounds = np.round(np.cumsum([0.0, *(share for _, share in shares)]) * len(sizes)).astype(np.int64)
    strata = []
    for (name, _), low, high in zip(shares, bounds[:-1], bounds[1:], strict=True):
        members = np.sort(order[low:high])
        if len(members):
            taken = members[:most]
            is_census = is_whole and len(taken) == len(members)
            found = sizes[members]
            strata.append(Stratum(name, len(members) / len(sizes), taken, is_census, int(found.min()), int(found.max())))
    return strata


def census_bound(values: NDArray[np.float64], delta: float = 0.0) -> float:
    """The mean itself: when every member of the population was asked, nothing was sampled and nothing is uncertain."""
    return float(np.mean(values))


def certificate(ef: int, recalls: NDArray[np.float64], strata: Sequence[Stratum], target: float, delta: float) -> Certificate:
    """What recalls (n,) of queries at one ef show: a bound of the smallest recall of any stratum, wrong with probability delta at most.

    Each stratum is bounded at delta. The least of the bounds exceeds the least recall only when the bound of that one stratum is wrong,
    so no correction for their number is due (intersection-union test, Berger 1982).
    """
    measured = []
    for stratum in strata:
        values = recalls[stratum.rows]
        lower = census_bound(values) if stratum.is_census else betting_lower_bound(values, delta)
        measured.append(
            StratumRecall(stratum.name, stratum.share, len(values), stratum.smallest, stratum.largest, float(values.mean()), lower)
        )
    lower = min(one.lower_bound for one in measured)
    mean = sum(one.share * one.recall for one in measured) / sum(one.share for one in measured)
    return Certificate(ef, mean, lower, lower >= target, tuple(measured))


def choose_ef(
    grid: Sequence[int], measure: Callable[[int], NDArray[np.float64]], strata: Sequence[Stratum], target: float, delta: float
) -> Certificate:
    """The smallest ef of the grid whose recall is certified in every stratum, walking down from the largest up to the first failure.

    measure: ef to (n,) recall of each query. Fixed-sequence testing keeps the error at delta although several ef are tried. When even
    the largest fails it is returned, not certified. Raises InvalidInput for an empty grid, or no stratum.
    """
    if not grid or not strata:
        raise InvalidInput("Expected at least one ef and one stratum.")
    chosen: Certificate | None = None
    for ef in sorted(set(grid), reverse=True):
        step = certificate(ef, measure(ef), strata, target, delta)
        if not step.certified:
            return chosen or step
        chosen = step
    assert chosen is not None
    return chosen
