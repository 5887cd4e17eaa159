"""Exact nearest neighbours by blocked matrix product: the oracle that indexes are measured against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from discovery.errors import EmptyReference, InvalidInput


def normalise(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows scaled to unit length.

    vectors: (n, d). Returns (n, d) float32. Raises InvalidInput when a row is zero or not finite.

    >>> normalise(np.array([[3.0, 4.0]], dtype=np.float32)).tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """
    if vectors.ndim != 2:
        raise InvalidInput(f"Expected (n, d) vectors, found shape {vectors.shape}.")
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    bad = ~np.isfinite(norms) | (norms == 0)
    if bad.any():
        raise InvalidInput(
            f"{int(bad.sum())} of {len(vectors)} vectors are zero, NaN or infinite; the first is row {int(np.argmax(bad))}."
        )
    return np.asarray(vectors / norms[:, None], np.float32)


def exact_knn(
    queries: NDArray[np.float32], references: NDArray[np.float32], k: int, *, query_ids: Sequence[str] | None = None,
    reference_ids: Sequence[str] | None = None, reference_rows: NDArray[np.int64] | None = None, own: NDArray[np.int64] | None = None,
    block: int = 4096,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:  # fmt: skip
    """The k nearest references of each query by cosine distance, nearest first.

    queries: (n, d), references: (r, d), unit rows. With both id lists a query's own row is dropped by id, never by rank. Equal
    distances are ordered by reference id (by row without ids), so the answer does not depend on the order of the references. reference_rows:
    only these references, of which the rest is not read; the rows returned are then places in this list. own: (n,) the row of each query among
    the references where there are no ids, -1 for none; it is dropped. k is
    lowered to what every query has. Returns (n, k) int64 rows and (n, k) float32 distances in [0, 2]. Memory: about block² floats.
    Raises EmptyReference when a query has nothing to be compared with, InvalidInput when widths differ, k < 1, or ids and rows are both given.

    >>> e = np.eye(2, dtype=np.float32)
    >>> exact_knn(e, e, 5, query_ids=["a", "b"], reference_ids=["a", "b"])[0].tolist()
    [[1], [0]]
    """
    n, r = len(queries), len(references if reference_rows is None else reference_rows)
    if k < 1 or queries.ndim != 2 or references.ndim != 2 or (n and r and queries.shape[1] != references.shape[1]):
        raise InvalidInput(f"Expected k >= 1 and equal widths, found k = {k}, {queries.shape} and {references.shape}.")
    if reference_rows is not None and reference_ids is not None:
        raise InvalidInput("Expected reference_ids or reference_rows, found both.")
    order = np.argsort(np.asarray(reference_ids)) if reference_ids is not None else reference_rows
    own = np.full(n, -1) if own is None else own
    if query_ids is not None and reference_ids is not None and order is not None:
        own = _own_places(query_ids, reference_ids, order)
    has_own = bool((own >= 0).any())
    available = r - int(has_own)
    if n and available < 1:
        raise EmptyReference(f"{n} queries have no reference to be compared with ({r} given). Add assets first.")
    k = min(k, max(available, 0))
    rows, distances = np.zeros((n, k), np.int64), np.zeros((n, k), np.float32)
    step = min(MOST_ROWS, max(block, block * block // max(1, min(n, block))))  # few queries: more references at once
    for start in range(0, n, block):
        stop = min(start + block, n)
        best = np.full((stop - start, k), np.iinfo(np.int64).max)
        for low in range(0, r, step):
            part = references[low : low + step] if order is None else references[order[low : low + step]]
            found = np.asarray(queries[start:stop] @ part.T, np.float32)
            np.subtract(np.float32(1.0), found, out=found)
            np.clip(found, 0.0, 2.0, out=found)
            if has_own:
                mine = np.flatnonzero((own[start:stop] >= low) & (own[start:stop] < low + len(part)))
                found[mine, own[start:stop][mine] - low] = np.inf
            best = _merged(best, found, low, k)
        best.sort(axis=1)
        places = best & 0xFFFFFFFF
        rows[start:stop] = places if order is None or reference_ids is None else order[places]
        distances[start:stop] = (best >> 32).astype(np.int32).view(np.float32)
    return rows, distances


MOST_ROWS = 65536  # references looked at in one block


def _merged(best: NDArray[np.int64], found: NDArray[np.float32], low: int, k: int) -> NDArray[np.int64]:
    """The k smallest keys of what was best so far and of one block of distances."""
    if found.shape[1] > 8 * k:  # only what is not farther than the k-th of the block can matter; mostly that is about k of thousands
        chosen = found <= _edge(found, k)
        counts = np.count_nonzero(chosen, axis=1)
        width = int(counts.max())
        if width <= 4 * k:
            places = np.flatnonzero(chosen.ravel())
            row = np.repeat(np.arange(len(found)), counts)
            slot = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
            keys = np.full((len(found), width), np.iinfo(np.int64).max)
            keys[row, slot] = (found.ravel()[places].view(np.int32).astype(np.int64) << 32) | (places - row * found.shape[1] + low)
            return np.partition(np.concatenate([best, keys], axis=1), k - 1, axis=1)[:, :k]
    return np.partition(np.concatenate([best, _sortable(found, low)], axis=1), k - 1, axis=1)[:, :k]


def _edge(found: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """(n, 1) not below the k-th smallest of each row, and hardly above it: the k-th smallest of the least of every few, which are fewer."""
    r = found.shape[1]
    few = min(16, r // (8 * k))  # then about k + k / 16 are not above it
    if few < 2:
        return np.partition(found, k - 1, axis=1)[:, k - 1 : k]
    width = r // few
    least = np.minimum(found[:, :width], found[:, width : 2 * width])
    for start in range(2 * width, few * width, width):
        np.minimum(least, found[:, start : start + width], out=least)
    if width * few < r:
        least = np.concatenate([least, found[:, width * few :]], axis=1)
    return np.partition(least, k - 1, axis=1)[:, k - 1 : k]


def _own_places(query_ids: Sequence[str], reference_ids: Sequence[str], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each query the place of its own id among the ordered references, -1 when it is not there."""
    place = {reference_ids[int(row)]: number for number, row in enumerate(order)}
    return np.array([place.get(query_id, -1) for query_id in query_ids], np.int64)


def _sortable(distances: NDArray[np.float32], first: int) -> NDArray[np.int64]:
    """One int64 for (distance, place): the bits of non-negative floats order like the floats, so no two keys tie."""
    places = np.arange(first, first + distances.shape[1], dtype=np.int64)
    return (np.ascontiguousarray(distances).view(np.int32).astype(np.int64) << 32) | places
