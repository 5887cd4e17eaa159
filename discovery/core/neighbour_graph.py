"""The nearest neighbours of every row among all rows: exactly, or in blocks where there are many; the same on every machine."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from math import fsum, sqrt
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from discovery.core.knn import exact_knn
from discovery.core.lattice import WHOLE, on_lattice, whole_similarity

EXACT_ROWS = 32_768  # up to so many rows all pairs are looked at
BLOCK_ROWS = 2_000  # of a block on average: then a million rows take 1e10 dot products, a hundredth of all
HOMES = 2  # blocks a row is in: one keeps .65 of the pairs at a cosine of .8 (ALGORITHMS section 2)
LARGEST_BLOCK = 16_384  # a block that is larger is cut again
TRAIN_ROWS = 64  # rows a centre is fitted on
ROUNDS = 6  # of Lloyd's algorithm
QUERIES = 4096  # rows that a thread looks up at once
PROBES = 512  # rows by which the recall of blocks is measured
_NONE = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Neighbours:
    """The k nearest others of each of n rows, nearest first, equally near ones by row; and how alike they are, WHOLE for a cosine of 1.

    rows: (n, k) int32, -1 where a block had no more. similarity: (n, k) int32, 0 there. recall: share of the true ones that was found, 1 when all
    pairs were looked at, else of 512 rows.
    """

    rows: NDArray[np.int32]
    similarity: NDArray[np.int32]
    recall: float

    @cached_property
    def covering(self) -> Covering:
        """Who covers whom."""
        return _symmetric(self)

    def density(self, k: int = 10) -> NDArray[np.int64]:
        """(n,) sum of the similarities to the k nearest: higher is denser."""
        return np.asarray(self.similarity[:, :k].sum(axis=1, dtype=np.int64), np.int64)


@dataclass(frozen=True, slots=True)
class Covering:
    """A symmetric sparse matrix: row i is alike `columns[starts[i]:starts[i + 1]]`, itself among them, by `similarity`."""

    starts: NDArray[np.int64]
    columns: NDArray[np.int32]
    similarity: NDArray[np.int32]


def neighbours_of(vectors: NDArray[np.float32], k: int, exact_rows: int = EXACT_ROWS, threads: int = 1) -> Neighbours:
    """The k nearest other rows of every row by cosine, on the lattice of core.lattice.

    vectors: (n, d) unit rows. Up to `exact_rows` rows all pairs are compared. Above, rows are put into the blocks of their two nearest centres
    (k-means, in whole numbers) and compared within them, so that the cost grows with n instead of its square. Both depend on the order of
    the rows only where equally near ones are many; neither depends on the number of threads. Memory: 8 k bytes a row, the rows on the lattice,
    and a block's pairs a thread.

    >>> neighbours_of(np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32), 1).rows.tolist()
    [[1], [0], [1]]
    """
    rows = on_lattice(vectors)
    n = len(rows)
    k = min(k, n - 1)
    if k < 1:
        return Neighbours(np.zeros((n, 0), np.int32), np.zeros((n, 0), np.int32), 1.0)
    with ThreadPoolExecutor(threads) as pool:
        if n <= exact_rows:
            return _of_all(rows, k, pool)
        best = np.full((n, k), _NONE)
        lock = Lock()

        def compare(block: NDArray[np.int64]) -> None:
            part = rows[block]
            places, distances = exact_knn(part, part, min(k, len(block) - 1), own=np.arange(len(block)))
            keys = (distances.view(np.int32).astype(np.int64) << 32) | block[places]
            with lock:  # blocks share rows
                _merge(best, block, keys)

        for _ in pool.map(compare, (block for block in _blocks(rows, np.arange(n), BLOCK_ROWS, pool) if len(block) > 1)):
            pass
    found = best != _NONE
    near = np.where(found, (best >> 32).astype(np.int32).view(np.float32), np.float32(1.0))
    columns = np.where(found, best & 0xFFFFFFFF, -1).astype(np.int32)
    return Neighbours(columns, whole_similarity(np.asarray(1.0 - near, np.float32)).astype(np.int32), _recall(rows, near, found))


def kmeans(rows: NDArray[np.float32], centres: int, first: NDArray[np.int64], rounds: int = ROUNDS) -> NDArray[np.float32]:
    """(c, d) centres on the lattice: Lloyd's algorithm by cosine, from the rows `first`, in whole numbers and so alike everywhere.

    rows: (n, d) on the lattice. A centre that loses all its rows stays where it was.
    """
    found = rows[first[:centres]].copy()
    for _ in range(rounds):
        home = nearest_centres(rows, found, 1)[:, 0]
        order = np.argsort(home, kind="stable")
        bounds = np.searchsorted(home[order], np.arange(len(found) + 1))
        for centre in range(len(found)):
            mine = order[bounds[centre] : bounds[centre + 1]]
            if len(mine):
                total = rows[mine].sum(axis=0, dtype=np.float64)  # multiples of 2**-12: exact in float64 in any order
                length = sqrt(fsum((total * total).tolist()))  # fsum rounds once, whatever the order
                if length > 0:
                    found[centre] = on_lattice((total / length)[None].astype(np.float32))[0]
    return found


def nearest_centres(rows: NDArray[np.float32], centres: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """(n, k) the nearest centres of each row, nearest first."""
    return exact_knn(rows, centres, min(k, len(centres)))[0]


def evenly(n: int, count: int) -> NDArray[np.int64]:
    """Up to `count` of n rows, evenly spaced: a draw where rows are in the order of content hashes.

    >>> evenly(10, 3).tolist(), evenly(2, 5).tolist()
    ([0, 3, 6], [0, 1])
    """
    count = min(n, count)
    return np.asarray(np.arange(count, dtype=np.int64) * n // max(count, 1), np.int64)


def _of_all(rows: NDArray[np.float32], k: int, pool: ThreadPoolExecutor) -> Neighbours:
    """By all pairs."""

    def look(start: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        own = np.arange(start, min(start + QUERIES, len(rows)))
        places, distances = exact_knn(rows[own], rows, k, own=own)
        return places.astype(np.int32), whole_similarity(1.0 - distances).astype(np.int32)

    found = list(pool.map(look, range(0, len(rows), QUERIES)))
    return Neighbours(np.concatenate([places for places, _ in found]), np.concatenate([alike for _, alike in found]), 1.0)


def _blocks(rows: NDArray[np.float32], members: NDArray[np.int64], wanted: int, pool: ThreadPoolExecutor) -> Iterator[NDArray[np.int64]]:
    """Members, ascending, of each block."""
    n = len(members)
    centres = max(2, HOMES * n // wanted)
    sample = members[evenly(n, TRAIN_ROWS * centres)]
    found = kmeans(rows[sample], centres, evenly(len(sample), centres))
    homes = np.concatenate(
        list(pool.map(lambda start: nearest_centres(rows[members[start : start + QUERIES]], found, HOMES).astype(np.int32), range(0, n, QUERIES)))
    )
    owners = np.repeat(members, homes.shape[1])
    order = np.argsort(homes.ravel(), kind="stable")
    bounds = np.searchsorted(homes.ravel()[order], np.arange(len(found) + 1))
    for centre in range(len(found)):
        block = owners[order[bounds[centre] : bounds[centre + 1]]]
        if len(block) <= LARGEST_BLOCK:
            yield block
        elif len(block) > n * 0.9:  # all alike: there is nothing by which to cut
            yield from (block[start : start + LARGEST_BLOCK] for start in range(0, len(block), LARGEST_BLOCK))
        else:
            yield from _blocks(rows, block, wanted, pool)


def _merge(best: NDArray[np.int64], block: NDArray[np.int64], keys: NDArray[np.int64]) -> None:
    """Enter the keys of one block; a pair of two blocks has one key, since its distance is exact."""
    k = best.shape[1]
    both = np.sort(np.concatenate([best[block], keys], axis=1), axis=1)
    both[:, 1:][both[:, 1:] == both[:, :-1]] = _NONE
    best[block] = np.sort(both, axis=1)[:, :k]


def _recall(rows: NDArray[np.float32], near: NDArray[np.float32], found: NDArray[np.bool_]) -> float:
    """Share of the true neighbours that was found, counted by distance, so that ties are hits."""
    probes = evenly(len(rows), PROBES)
    distances = exact_knn(rows[probes], rows, near.shape[1], own=probes)[1]
    hits = (near[probes] <= distances[:, -1:]) & found[probes]
    return float(hits.sum(axis=1).mean() / near.shape[1])


def _symmetric(neighbours: Neighbours) -> Covering:
    from scipy.sparse import csr_array

    n = len(neighbours.rows)
    keep = (neighbours.rows >= 0) & (neighbours.similarity > 0)
    starts = np.concatenate([[0], np.cumsum(keep.sum(axis=1) + 1)])
    columns = np.concatenate([np.where(keep, neighbours.rows, -1), np.arange(n, dtype=np.int32)[:, None]], axis=1)
    values = np.concatenate([neighbours.similarity, np.full((n, 1), WHOLE, np.int32)], axis=1)
    named = csr_array((values[columns >= 0], columns[columns >= 0], starts.astype(np.int32 if starts[-1] < 2**31 else np.int64)), shape=(n, n))
    naming = named.T.tocsr()  # ordered by column, in time that grows with the pairs
    both = naming.T.tocsr().maximum(naming)  # a pair that both rows name has one similarity, since it is exact
    return Covering(both.indptr.astype(np.int64), both.indices.astype(np.int32, copy=False), both.data)
