"""How good a ranking is: average precision, recall, precision and nDCG of each query, their mean with a bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from discovery.errors import EmptyReference, InvalidInput

ROUNDS = 2000  # bootstrap samples: the ends of a 95 % interval move by about 3 % of its width from seed to seed


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over queries, and the interval that holds it in `level` of bootstrap samples of the queries."""

    mean: float
    low: float
    high: float
    level: float
    queries: int


def rank(distances: NDArray[np.floating], ids: Sequence[str]) -> NDArray[np.int64]:
    """(n, r) int64: for each query the columns by distance, nearest first, equal distances by id.

    distances: (n, r), smaller is nearer; infinite for what may not be found, such as the query itself, which then comes last. ids: of the r
    columns. So the answer does not depend on the order of the columns. Raises InvalidInput: other shapes, NaN, an id twice.

    >>> rank(np.array([[0.2, 0.1, 0.2]]), ["c", "b", "a"]).tolist()
    [[1, 2, 0]]
    """
    if distances.ndim != 2 or distances.shape[1] != len(ids) or len(set(ids)) != len(ids):
        raise InvalidInput(f"Expected (n, r) distances and r distinct ids, found {distances.shape} and {len(set(ids))} of {len(ids)}.")
    if np.isnan(distances).any():
        raise InvalidInput("A distance is NaN, which has no place in a ranking.")
    by_id = np.argsort(np.asarray(ids, dtype=np.str_), kind="stable")
    return np.asarray(by_id[np.argsort(distances[:, by_id], axis=1, kind="stable")], np.int64)


def average_precision(hits: NDArray[np.bool_], relevant: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n,) float64 in [0, 1]: the mean, over what is relevant to a query, of the precision where it stands; 0 where it is not listed.

    hits: (n, m) bool, whether the place holds something relevant, nearest first; the list may be cut off. relevant: (n,) how many there
    are to be found in all. The mean over queries is the mAP. Larger is better. Raises InvalidInput: other shapes, less than 1 relevant or
    less than there are hits. Source: the uninterpolated form, as scikit-learn's `average_precision_score`.

    >>> average_precision(np.array([[True, False, True]]), np.array([2])).round(4).tolist()
    [0.8333]
    """
    _require_hits(hits, relevant)
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return np.asarray((precision * hits).sum(axis=1) / relevant, np.float64)


def precision_at(hits: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """(n,) float64 in [0, 1]: the share of the k nearest that is relevant; a list that is shorter than k counts as filled with misses.

    >>> precision_at(np.array([[True, False, True]]), 2).tolist()
    [0.5]
    """
    return np.asarray(_first(hits, k).sum(axis=1) / k, np.float64)


def recall_at(hits: NDArray[np.bool_], relevant: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """(n,) float64 in [0, 1]: the share of what is relevant that is among the k nearest. Arguments as of `average_precision`.

    >>> recall_at(np.array([[True, False, True]]), np.array([4]), 3).tolist()
    [0.5]
    """
    _require_hits(hits, relevant)
    return np.asarray(_first(hits, k).sum(axis=1) / relevant, np.float64)


def ndcg_at(hits: NDArray[np.bool_], relevant: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """(n,) float64 in [0, 1]: discounted gain of the k nearest, 1 / log2(1 + place) for each hit, over the best that is possible.

    Arguments as of `average_precision`. Source: Järvelin and Kekäläinen 2002, "Cumulated gain-based evaluation of IR techniques".

    >>> ndcg_at(np.array([[False, True]]), np.array([1]), 2).round(4).tolist()
    [0.6309]
    """
    _require_hits(hits, relevant)
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    found = _first(hits, k)
    best = np.cumsum(discount)[np.minimum(relevant, k) - 1]
    return np.asarray((found * discount[: found.shape[1]]).sum(axis=1) / best, np.float64)


def bootstrap(values: NDArray[np.floating], rng: np.random.Generator, *, level: float = 0.95, rounds: int = ROUNDS) -> Estimate:
    """The mean of one value a query, with its percentile interval over samples of the queries with replacement.

    values: (n,) such as average precisions, or their paired differences under two methods: an interval without 0 then tells them apart. It
    says how the figure would vary with other queries of the same kind, not with other references. Raises EmptyReference without values,
    InvalidInput for other shapes, values that are not finite, a level outside (0, 1). Source: Efron 1979.

    >>> bootstrap(np.array([1.0, 1.0]), np.random.default_rng(0))
    Estimate(mean=1.0, low=1.0, high=1.0, level=0.95, queries=2)
    """
    if values.ndim != 1 or not np.isfinite(values).all() or not 0 < level < 1 or rounds < 1:
        raise InvalidInput(f"Expected (n,) finite values, a level in (0, 1) and rounds, found {values.shape}, {level} and {rounds}.")
    n = len(values)
    if not n:
        raise EmptyReference("There is no query to take the mean over.")
    means = np.array([values[rng.integers(0, n, n)].mean() for _ in range(rounds)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(values.mean()), float(low), float(high), level, n)


def _first(hits: NDArray[np.bool_], k: int) -> NDArray[np.bool_]:
    if hits.ndim != 2 or k < 1:
        raise InvalidInput(f"Expected (n, m) hits and k >= 1, found {hits.shape} and {k}.")
    return hits[:, :k]


def _require_hits(hits: NDArray[np.bool_], relevant: NDArray[np.int64]) -> None:
    if hits.ndim != 2 or relevant.shape != hits.shape[:1]:
        raise InvalidInput(f"Expected (n, m) hits and (n,) counts of what is relevant, found {hits.shape} and {relevant.shape}.")
    if (relevant < 1).any() or (relevant < hits.sum(axis=1)).any():
        raise InvalidInput("Each query needs something that is relevant to it, and no more hits than that.")
