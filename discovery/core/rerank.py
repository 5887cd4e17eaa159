"""A second look at the nearest of a search: the query widened by them, rows smoothed by theirs, mutual neighbours, and variety.

None of these looks at more than it is given, so a shortlist from an index is enough; what is not on it cannot come up.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from discovery.core.knn import normalise
from discovery.errors import InvalidInput

DECIMALS = 6  # of cosine distances between float32 rows that mean something: copies are at 0, whatever their rounding


def alpha_query_expansion(
    query: NDArray[np.float32], neighbours: NDArray[np.float32], alpha: float = 3.0, k: int = 10
) -> NDArray[np.float32]:
    """The query moved towards its nearest: the sum of itself and the k nearest, each weighted by its cosine to the power alpha.

    query: (d,) unit. neighbours: (m, d) unit rows, in any order; of equal ones at the k-th place the first given counts. Cosines under 0
    weigh nothing. Returns (d,) float32 unit, to search with again. alpha = 0 is the plain mean (AQE), alpha → ∞ and k = 0 are the
    query itself. Cost: m·d. Raises InvalidInput: other shapes, rows not of length 1, alpha or k under 0. Source: Radenović et al. 2018,
    "Fine-tuning CNN image retrieval with no human annotation", whose alpha is 3.

    >>> e = np.eye(2, dtype=np.float32)
    >>> alpha_query_expansion(e[0], e, alpha=0.0, k=1).tolist()
    [1.0, 0.0]
    """
    _require_units(query[None, :] if query.ndim == 1 else query, neighbours)
    if query.ndim != 1 or not alpha >= 0 or k < 0:
        raise InvalidInput(f"Expected one (d,) query, alpha >= 0 and k >= 0, found {query.shape}, {alpha} and {k}.")
    cosines = neighbours @ query
    nearest = np.argsort(-cosines, kind="stable")[:k]
    moved = _weighted(query[None, :], neighbours[nearest][None, :, :], cosines[nearest][None, :], alpha)
    return np.asarray(moved[0], np.float32)


def database_augmentation(
    vectors: NDArray[np.float32], neighbours: NDArray[np.int64], rows: NDArray[np.int64] | None = None, alpha: float = 3.0
) -> NDArray[np.float32]:
    """Rows moved towards their own nearest, as `alpha_query_expansion` moves a query (DBA).

    vectors: (n, d) unit. rows: (m,) those to move, all without it. neighbours: (m, k) rows of `vectors`, the nearest of each (a neighbour graph, or
    `exact_knn` within a shortlist); -1 where there are fewer; a row's own number weighs 1 more. Returns (m, d) float32 unit. It need not be
    done for a whole database: give the rows of a shortlist. Cost: m·k·d, and m·k·d floats of memory; over a database of n rows also the
    graph, and its stored vectors again whenever neighbours come or go. Raises InvalidInput: other shapes, rows that are not there, alpha
    under 0. Source: Turcot and Lowe 2009, "Better matching with fewer features"; weights as in Radenović et al. 2018.
    """
    _require_units(vectors, vectors[:0])
    rows = np.arange(len(vectors)) if rows is None else rows
    if neighbours.ndim != 2 or rows.shape != neighbours.shape[:1] or not alpha >= 0:
        raise InvalidInput(f"Expected (m,) rows, (m, k) neighbours and alpha >= 0, found {rows.shape}, {neighbours.shape} and {alpha}.")
    n = len(vectors)
    if ((rows < 0) | (rows >= n)).any() or ((neighbours < -1) | (neighbours >= n)).any():
        raise InvalidInput(f"Expected rows 0 to {n - 1}, and -1 for no neighbour.")
    near = vectors[np.maximum(neighbours, 0)]
    cosines = np.where(neighbours >= 0, np.einsum("md,mkd->mk", vectors[rows], near), 0.0)
    return _weighted(vectors[rows], near, cosines, alpha, present=neighbours >= 0)


def k_reciprocal_distances(
    query: NDArray[np.float32], candidates: NDArray[np.float32], ids: Sequence[str], *, k1: int = 20, k2: int = 6, weight: float = 0.3
) -> NDArray[np.float32]:
    """Distances of a shortlist that count common mutual neighbours: near is what has the query among its own nearest, and theirs.

    query: (d,) unit; candidates: (m, d) unit, the 200 to 1,000 nearest; ids: (m,) theirs, which order equal distances. Returns (m,) float32
    in [0, 1]: weight · cosine distance, as a share of the largest in the shortlist, + (1 - weight) · Jaccard distance of the sets of
    k1-reciprocal neighbours, each smoothed over its k2 nearest. They are comparable within one answer alone. The order of the candidates
    changes nothing. Cost: m² floats, m²·d + m·k1² steps: 1,000 candidates take about a quarter of a second. Raises InvalidInput: other shapes, rows
    not of length 1, an id twice, k1 or k2 under 1, a weight outside [0, 1]. Source: Zhong et al. 2017, "Re-ranking person
    re-identification with k-reciprocal encoding", whose k1, k2 and weight are the defaults.
    """
    m = len(candidates)
    _require_units(query[None, :] if query.ndim == 1 else query, candidates)
    if query.ndim != 1 or len(ids) != m or len(set(ids)) != m:
        raise InvalidInput(f"Expected one (d,) query and {m} distinct ids, found {query.shape} and {len(set(ids))} of {len(ids)}.")
    if min(k1, k2) < 1 or not 0 <= weight <= 1:
        raise InvalidInput(f"Expected k1 >= 1, k2 >= 1 and a weight in [0, 1], found {k1}, {k2} and {weight}.")
    if not m:
        return np.zeros(0, np.float32)
    by_id = np.argsort(np.asarray(ids, dtype=np.str_), kind="stable")
    points = np.concatenate([query[None, :], candidates[by_id]]).astype(np.float64)
    distances = np.asarray(np.round(np.clip(1.0 - points @ points.T, 0.0, 2.0), DECIMALS), np.float64)
    np.fill_diagonal(distances, 0.0)
    distances /= np.maximum(distances.max(axis=1, keepdims=True), 10.0**-DECIMALS)
    sets = _mutual_sets(distances, k1)
    near = _nearest(distances, min(k2, m + 1))
    smooth = sets[near].mean(axis=1)
    common = np.minimum(smooth[0], smooth[1:]).sum(axis=1)
    jaccard = 1.0 - common / (2.0 - common)
    found = np.empty(m, np.float32)
    found[by_id] = np.clip(weight * distances[0, 1:] + (1.0 - weight) * jaccard, 0.0, 1.0)
    return found


def diversify(
    distances: NDArray[np.floating], candidates: NDArray[np.float32], ids: Sequence[str], count: int
) -> NDArray[np.int64]:
    """`count` of a shortlist that differ from one another: the nearest, then always the one farthest from all that were taken.

    distances: (m,) from the query. candidates: (m, d) unit. ids: (m,). Returns (min(count, m),) int64 rows in the order they were taken. The
    first is always the nearest, and a copy of what was taken comes only after everything that is none; equals are ordered by distance from the
    query, then id, so the order of the candidates changes nothing. How far the answer goes from the query is decided by the length of the
    shortlist: three times `count` is a good start. Cost: count·m·d. Raises InvalidInput: other shapes, NaN, an id twice, count under 1.
    Source: Gonzalez 1985, "Clustering to minimize the maximum intercluster distance" (greedy k-center).

    >>> e = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    >>> diversify(np.array([0.0, 0.0, 1.0]), e, ["b", "a", "c"], 2).tolist()
    [1, 2]
    """
    m = len(candidates)
    _require_units(candidates, candidates[:0])
    if distances.shape != (m,) or len(ids) != m or len(set(ids)) != m or count < 1 or np.isnan(distances).any():
        raise InvalidInput(f"Expected {m} distances and distinct ids, and count >= 1, found {distances.shape}, {len(set(ids))} and {count}.")
    order = np.lexsort((np.asarray(ids, dtype=np.str_), distances))
    points = candidates[order].astype(np.float64)
    apart = np.full(m, np.inf)  # so that the nearest is first
    taken: list[int] = []
    while len(taken) < min(count, m):
        place = int(np.argmax(apart))
        taken.append(place)
        apart = np.minimum(apart, np.round(np.maximum(1.0 - points @ points[place], 0.0), DECIMALS))
        apart[taken] = -1.0
    return np.asarray(order[taken], np.int64)


def _weighted(
    own: NDArray[np.float32], near: NDArray[np.float32], cosines: NDArray[np.floating], alpha: float,
    present: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:  # fmt: skip
    """(n, d) unit: own (n, d) + the sum over k of near (n, k, d), weighted by cosine ** alpha (n, k)."""
    weights = np.clip(cosines.astype(np.float64), 0.0, 1.0)
    weights = np.where(weights > 0, weights**alpha, 0.0)
    if present is not None:
        weights = np.where(present, weights, 0.0)
    return normalise((own.astype(np.float64) + np.einsum("nk,nkd->nd", weights, near.astype(np.float64))).astype(np.float32))


def _nearest(distances: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """(n, k): each row's nearest, itself first, equals by row."""
    keys = distances.copy()
    np.fill_diagonal(keys, -1.0)
    return np.asarray(np.argsort(keys, axis=1, kind="stable")[:, :k], np.int64)


def _mutual_sets(distances: NDArray[np.float64], k1: int) -> NDArray[np.float64]:
    """(n, n): for each row the weights, of sum 1, of its k1-reciprocal neighbours and of theirs that mostly are among them."""
    n = len(distances)
    nearest = _nearest(distances, min(k1 + 1, n))
    half = nearest[:, : min(round(k1 / 2) + 1, n)]
    wide, narrow = _mutual(nearest, n), _mutual(half, n)
    sizes = narrow.sum(axis=1)
    weights = np.zeros((n, n))
    for row in range(n):
        members = wide[row]
        mine = np.flatnonzero(members)
        shared = (narrow[mine] & members).sum(axis=1)
        added = mine[3 * shared > 2 * sizes[mine]]
        chosen = np.flatnonzero(members | narrow[added].any(axis=0))
        exponential = np.exp(-distances[row, chosen])
        weights[row, chosen] = exponential / exponential.sum()
    return weights


def _mutual(nearest: NDArray[np.int64], n: int) -> NDArray[np.bool_]:
    """(n, n): whether each of two rows is among the other's nearest."""
    listed = np.zeros((n, n), np.bool_)
    np.put_along_axis(listed, nearest, True, axis=1)
    return listed & listed.T


def _require_units(rows: NDArray[np.float32], others: NDArray[np.float32]) -> None:
    if rows.ndim != 2 or others.ndim != 2 or rows.shape[1] != others.shape[1]:
        raise InvalidInput(f"Expected rows of one width, found {rows.shape} and {others.shape}.")
    for part in (rows, others):
        norms = np.linalg.norm(part, axis=1)
        if not (np.abs(norms - 1.0) <= 1e-3).all():  # NaN compares false
            raise InvalidInput("Expected unit vectors; a row is not finite or not of length 1. Normalise them first.")
