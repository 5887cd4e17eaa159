"""Near-duplicates: pairs proposed by hashes, small luma and vectors, and groups around a keeper, without chains, under ids that stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from discovery.addressing import content_id
from discovery.core.grid import turned
from discovery.errors import InvalidInput

Near = Callable[[slice, slice], NDArray[Any]]
Value = TypeVar("Value", np.int64, np.float64)
Fresh = NDArray[np.bool_] | None
SLACK = 1e-4  # a product of matrices rounds otherwise in other blocks: what is near a threshold is computed again, alone


def hamming_pairs(
    hashes: NDArray[np.uint8],
    max_distance: int = 31,
    eligible: NDArray[np.bool_] | None = None,
    block: int = 2048,
    fresh: Fresh = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of hashes that differ in at most `max_distance` bits.

    hashes: (n, 32) uint8. eligible: (n,) rows that take part, None for all. fresh: (n,), only pairs with at least one of these rows; None
    for all pairs. Returns (m, 2) rows with i < j, sorted, and (m,) bits. 31 of 256 is the recommendation of PDQ's authors. Memory:
    about 4·block² integers.
    """
    if hashes.ndim != 2 or hashes.shape[1] % 8:
        raise InvalidInput(f"Expected (n, 32) bytes, found {hashes.shape}.")
    rows, first = _old_first(np.flatnonzero(eligible) if eligible is not None else np.arange(len(hashes)), fresh)
    words = np.ascontiguousarray(hashes[rows]).view(np.uint64)

    def near(a: slice, b: slice) -> NDArray[np.int64]:
        distance = np.zeros((len(words[a]), len(words[b])), np.int64)
        for word in range(words.shape[1]):
            distance += np.bitwise_count(words[a, word][:, None] ^ words[b, word][None, :])
        return np.where(distance <= max_distance, distance, -1)

    pairs, values = _pairs_of(near, len(rows), block, first)
    return _sorted_pairs(rows[pairs], values.astype(np.int64))


def cosine_pairs(
    vectors: NDArray[np.float32], threshold: float, block: int = 2048, fresh: Fresh = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pairs of unit vectors with cosine similarity at or above `threshold`.

    vectors: (n, d). fresh: as in `hamming_pairs`. Returns (m, 2) rows with i < j, sorted, and (m,) similarities, each a function of its two
    vectors alone.
    """
    rows, first = _old_first(np.arange(len(vectors)), fresh)

    def near(a: slice, b: slice) -> NDArray[np.float64]:
        similarity = (vectors[rows[a]] @ vectors[rows[b]].T).astype(np.float64)
        return np.where(similarity >= threshold - SLACK, 0.0, -1.0)

    pairs, _ = _pairs_of(near, len(vectors), block, first)
    pairs, _ = _sorted_pairs(rows[pairs], np.zeros(len(pairs)))
    values = cosines(vectors, pairs)
    kept = values >= threshold
    return pairs[kept], values[kept]


def cosines(vectors: NDArray[np.float32], pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """(m,) cosine similarity of each of the (m, 2) pairs of unit vectors."""
    result = np.empty(len(pairs))
    for start in range(0, len(pairs), 16384):
        part = pairs[start : start + 16384]
        products = vectors[part[:, 0]].astype(np.float64) * vectors[part[:, 1]].astype(np.float64)
        result[start : start + len(part)] = products.sum(axis=1)  # row by row: rounds alike wherever the row stands
    return result


def turned_luma_pairs(
    luma: NDArray[np.uint8], threshold: float, block: int = 2048, fresh: Fresh = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pairs whose luma correlates at least by `threshold` when one of both is turned or mirrored in the best of eight ways.

    luma: (n, p) uint8, square grids. fresh: as in `hamming_pairs`. Returns (m, 2) rows with i < j, sorted, and (m,) correlations, each a
    function of its two pictures alone. Flat pictures have none. A copy that was resized, compressed, blurred, made grey or turned
    correlates by .95 and more, so this finds what a perceptual hash finds, in any of the eight ways.
    """
    side = round(luma.shape[1] ** 0.5) if luma.ndim == 2 else 0
    if luma.ndim != 2 or side * side != luma.shape[1]:
        raise InvalidInput(f"Expected (n, side * side) grids, found {luma.shape}.")
    rows, first = _old_first(np.arange(len(luma)), fresh)
    places = [np.ascontiguousarray(turned(np.arange(luma.shape[1]).reshape(side, side), turn)).ravel() for turn in range(8)]
    units = luma.astype(np.float32) - luma.mean(axis=1, keepdims=True, dtype=np.float32)
    units /= np.maximum(np.linalg.norm(units, axis=1, keepdims=True), 1e-6)

    def near(a: slice, b: slice) -> NDArray[np.float64]:
        left, right = units[rows[a]], units[rows[b]]
        best = np.full((len(left), len(right)), -1.0, np.float32)
        for place in places:
            np.maximum(best, left[:, place] @ right.T, out=best)
        return np.where(best >= threshold - SLACK, 0.0, -1.0)

    pairs, _ = _pairs_of(near, len(luma), block, first)
    pairs, _ = _sorted_pairs(rows[pairs], np.zeros(len(pairs)))
    correlations = np.full(len(pairs), -1.0)
    for place in places:
        np.maximum(correlations, _correlation(luma, pairs, place), out=correlations)
    kept = correlations >= threshold
    return pairs[kept], correlations[kept]


def _correlation(luma: NDArray[np.uint8], pairs: NDArray[np.int64], place: NDArray[np.int64]) -> NDArray[np.float64]:
    """Pearson correlation of each pair, the first turned, from exact integer sums; 0 when one is flat."""
    result = np.zeros(len(pairs))
    for start in range(0, len(pairs), 65536):
        part = pairs[start : start + 65536]
        a, b = luma[part[:, 0]][:, place].astype(np.int64), luma[part[:, 1]].astype(np.int64)
        p = luma.shape[1]
        above = p * (a * b).sum(axis=1) - a.sum(axis=1) * b.sum(axis=1)
        below = (p * (a * a).sum(axis=1) - a.sum(axis=1) ** 2) * (p * (b * b).sum(axis=1) - b.sum(axis=1) ** 2).astype(np.float64)
        result[start : start + len(part)] = np.where(below > 0, above / np.sqrt(np.maximum(below, 1.0)), 0.0)
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
    (m, 2) rows. Assets become keepers in that order; a keeper takes its direct neighbours that are still free. So no two members of a
    group are more than two links apart.
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


def carry_group_ids(asset_ids: Sequence[str], keeper: NDArray[np.int64], earlier: Mapping[str, str]) -> list[str]:
    """(n,) the id of each asset's group: the one it had, as far as that can be.

    asset_ids: n distinct ids. keeper: (n,) row of each asset's keeper. earlier: asset id to group id of the report before; empty for the
    first. An earlier id goes to the group that holds most of its former members, of equal ones to that with the smaller keeper; a
    group that could have several takes the one that most of its members had, then the smallest. A group that inherits none is called
    by its keeper's id, or by a digest of it when another group has that name. So a group that only grows keeps its id, whatever
    keeper it gets.

    >>> carry_group_ids(["a", "b", "c"], np.array([1, 1, 2]), {"a": "a"})  # b came, is better and keeps; the group stays "a"
    ['a', 'a', 'c']
    """
    votes: Counter[tuple[str, int]] = Counter()
    for row, asset_id in enumerate(asset_ids):
        if asset_id in earlier:
            votes[earlier[asset_id], int(keeper[row])] += 1
    names: dict[int, str] = {}
    taken: set[str] = set()
    for (name, kept), _ in sorted(votes.items(), key=lambda item: (-item[1], item[0][0], asset_ids[item[0][1]])):
        if kept not in names and name not in taken:
            names[kept] = name
            taken.add(name)
    for kept in sorted({int(row) for row in keeper} - set(names), key=lambda row: asset_ids[row]):
        name = asset_ids[kept]
        while name in taken:
            name = content_id(["duplicate group", name])
        names[kept] = name
        taken.add(name)
    return [names[int(row)] for row in keeper]


def _old_first(rows: NDArray[np.int64], fresh: Fresh) -> tuple[NDArray[np.int64], int]:
    """The rows with the fresh ones last, and how many are not fresh."""
    if fresh is None:
        return rows, 0
    is_fresh = fresh[rows]
    return np.concatenate([rows[~is_fresh], rows[is_fresh]]), int((~is_fresh).sum())


def _pairs_of(near: Near, n: int, block: int, first: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows and values of the upper triangle where `near(rows, columns)` is not negative, block by block; columns from `first` on."""
    pairs, values = [np.zeros((0, 2), np.int64)], [np.zeros(0)]
    for right in range(first, n, block):
        for low in range(0, min(right + block, n), block):
            value = near(slice(low, low + block), slice(right, right + block))
            i, j = np.nonzero(value >= 0)
            upper = i + low < j + right
            pairs.append(np.stack([i[upper] + low, j[upper] + right], axis=1))
            values.append(value[i[upper], j[upper]])
    return np.concatenate(pairs), np.concatenate(values)


def _sorted_pairs(pairs: NDArray[np.int64], values: NDArray[Value]) -> tuple[NDArray[np.int64], NDArray[Value]]:
    """Pairs with the smaller row first, in ascending order of both, values alike."""
    pairs = np.sort(pairs, axis=1)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], values[order]
