"""Near-duplicates: pairs proposed by hashes and vectors, confirmed by aligned luma, grouped without chains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from discovery.errors import InvalidInput

Near = Callable[[slice, slice], NDArray[Any]]
Value = TypeVar("Value", np.int64, np.float64)


def hamming_pairs(
    hashes: NDArray[np.uint8], max_distance: int = 31, eligible: NDArray[np.bool_] | None = None, block: int = 2048
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of hashes that differ in at most `max_distance` bits.

    hashes: (n, 32) uint8. eligible: (n,) rows that take part, None for all. Returns (m, 2) rows with i < j, sorted, and (m,) bits.
    31 of 256 is the recommendation of PDQ's authors. Memory: about 4·block² integers.
    """
    if hashes.ndim != 2 or hashes.shape[1] % 8:
        raise InvalidInput(f"Expected (n, 32) bytes, found {hashes.shape}.")
    rows = np.flatnonzero(eligible) if eligible is not None else np.arange(len(hashes))
    words = np.ascontiguousarray(hashes[rows]).view(np.uint64)

    def near(a: slice, b: slice) -> NDArray[np.int64]:
        distance = np.zeros((len(words[a]), len(words[b])), np.int64)
        for word in range(words.shape[1]):
            distance += np.bitwise_count(words[a, word][:, None] ^ words[b, word][None, :])
        return np.where(distance <= max_distance, distance, -1)

    pairs, values = _pairs_of(near, len(rows), block)
    return _sorted_pairs(rows[pairs], values.astype(np.int64))


def cosine_pairs(
    vectors: NDArray[np.float32], threshold: float, block: int = 2048
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pairs of unit vectors with cosine similarity at or above `threshold`.

    vectors: (n, d). Returns (m, 2) rows with i < j, sorted, and (m,) similarities.
    """

    def near(a: slice, b: slice) -> NDArray[np.float64]:
        similarity = (vectors[a] @ vectors[b].T).astype(np.float64)
        return np.where(similarity >= threshold, similarity + 2.0, -1.0)  # moved, so that negative means "no pair"

    pairs, values = _pairs_of(near, len(vectors), block)
    return _sorted_pairs(pairs, values.astype(np.float64) - 2.0)


def luma_correlation(luma: NDArray[np.uint8], pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Pearson correlation of aligned low-resolution luma, in [-1, 1].

    luma: (n, p) uint8, pairs: (m, 2). Returns (m,). A flat picture correlates 1 with an equal one and 0 with any other.
    """
    result = np.empty(len(pairs))
    for start in range(0, len(pairs), 65536):
        part = pairs[start : start + 65536]
        a, b = luma[part[:, 0]].astype(np.float64), luma[part[:, 1]].astype(np.float64)
        a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
        scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
        equal = (luma[part[:, 0]] == luma[part[:, 1]]).all(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            value = (a * b).sum(axis=1) / scale
        result[start : start + len(part)] = np.where(scale > 0, np.clip(value, -1, 1), equal.astype(np.float64))
    return result


@dataclass(frozen=True, slots=True)
class DuplicateGroups:
    """Three (n,) int64 columns.

    `group_index`: groups around a keeper, each member directly linked to it. `keeper`: row of the group's keeper. `component_index`:
    everything connected by any chain of links; splits and leakage use it, so that chains cannot leak.
    """

    group_index: NDArray[np.int64]
    keeper: NDArray[np.int64]
    component_index: NDArray[np.int64]


def group_duplicates(asset_ids: Sequence[str], keeper_rank: NDArray[np.float64], pairs: NDArray[np.int64]) -> DuplicateGroups:
    """Groups from verified links; the same partition and keepers in whatever order the assets come.

    asset_ids: n distinct ids. keeper_rank: (n, c), larger is better, compared column by column, ties to the smallest id. pairs:
    (m, 2) rows. Assets become keepers in that order; a keeper takes its direct neighbours that are still free.
    """
    n = len(asset_ids)
    neighbours: list[list[int]] = [[] for _ in range(n)]
    root = np.arange(n)

    def find(row: int) -> int:
        while root[row] != row:
            root[row] = root[root[row]]
            row = int(root[row])
        return row

    for a, b in pairs.tolist():
        neighbours[a].append(b)
        neighbours[b].append(a)
        root[find(a)] = find(b)
    order = sorted(range(n), key=lambda row: (*(-keeper_rank[row]).tolist(), asset_ids[row]))
    keeper = np.full(n, -1, np.int64)
    for row in order:
        if keeper[row] < 0:
            keeper[row] = row
            for other in neighbours[row]:
                if keeper[other] < 0:
                    keeper[other] = row
    _, group_index = np.unique(keeper, return_inverse=True)
    _, component_index = np.unique(np.array([find(row) for row in range(n)], np.int64), return_inverse=True)
    return DuplicateGroups(group_index.astype(np.int64), keeper, component_index.astype(np.int64))


def _pairs_of(near: Near, n: int, block: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows and values of the upper triangle where `near(rows, columns)` is not negative, block by block."""
    pairs, values = [np.zeros((0, 2), np.int64)], [np.zeros(0)]
    for low in range(0, n, block):
        for right in range(low, n, block):
            value = near(slice(low, low + block), slice(right, right + block))
            i, j = np.nonzero(value >= 0)
            upper = i + low < j + right
            pairs.append(np.stack([i[upper] + low, j[upper] + right], axis=1))
            values.append(value[i[upper], j[upper]])
    return np.concatenate(pairs), np.concatenate(values)


def _sorted_pairs(pairs: NDArray[np.int64], values: NDArray[Value]) -> tuple[NDArray[np.int64], NDArray[Value]]:
    """Pairs in ascending order of both rows, values alike."""
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], values[order]
