"""Regions of a picture: overlapping windows over a grid of cells, their vectors, and the nearest of them to a query.

A window is SIDE cells wide and high, and STEP cells from the next; a picture with fewer cells has windows as large as it is. Source of
the idea: Tolias et al. 2016, "Particular object retrieval with integral max-pooling of CNN activations" (R-MAC); here windows are means
and each keeps its own vector, since the sum of all loses a part of 2 % of the picture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from discovery.errors import InvalidInput

SIDE, STEP = 3, 2  # of 14 cells along the longer side: a fifth of it, overlapping by a third (decision 17)
BLOCK = 1024  # regions that are compared at once: 2 MB of 432 float32, which stay in a cache


def windows(rows: int, columns: int) -> NDArray[np.int64]:
    """(r, 4) int64 windows over a grid of cells: top, left, bottom, right, the last two exclusive; row by row, each edge is covered.

    Raises InvalidInput when there is no cell.

    >>> windows(3, 4).tolist()
    [[0, 0, 3, 3], [0, 1, 3, 4]]
    """
    if rows < 1 or columns < 1:
        raise InvalidInput(f"A grid has at least one cell, found {rows} x {columns}.")
    return np.array([(y, x, y + high, x + wide) for y, high in _places(rows) for x, wide in _places(columns)], np.int64)


def boxes(rows: int, columns: int, width_px: int, height_px: int) -> NDArray[np.int64]:
    """(r, 4) int64: the windows of a grid as x, y, width, height in pixels of a picture of that size.

    >>> boxes(3, 4, 400, 300).tolist()
    [[0, 0, 300, 300], [100, 0, 300, 300]]
    """
    found = windows(rows, columns) * np.array([height_px / rows, width_px / columns] * 2)
    top, left, bottom, right = np.round(found).astype(np.int64).T
    return np.stack([left, top, np.maximum(right - left, 1), np.maximum(bottom - top, 1)], axis=1)


def pool(cells: NDArray[np.floating], places: NDArray[np.int64]) -> NDArray[np.float32]:
    """(r, d) float32: the mean of the cells in each window.

    cells: (rows, columns, d), what a model says of each. places: (r, 4) `windows`. Raises InvalidInput for windows outside of the grid.
    """
    if cells.ndim != 3 or (places < 0).any() or (len(places) and (places[:, 2:].max(axis=0) > cells.shape[:2]).any()):
        raise InvalidInput(f"Expected windows within a grid of {cells.shape[:2]} cells.")
    sums = np.zeros((cells.shape[0] + 1, cells.shape[1] + 1, cells.shape[2]), np.float64)
    sums[1:, 1:] = cells.astype(np.float64).cumsum(axis=0).cumsum(axis=1)
    top, left, bottom, right = places.T
    found = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return np.asarray(found / ((bottom - top) * (right - left))[:, None], np.float32)


def joined(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """(r, Σd) float32 unit rows of several (r, d): each part of length 1 first, so that the cosine of two rows is the mean of the parts' cosines.

    A part of a row that is zero (nothing was seen there by that layer) stays zero; a row of zeros alone is given 1 in every place, so
    that it is as far from everything as a flat picture is.

    >>> joined([np.array([[3.0]], np.float32), np.array([[0.0, 2.0]], np.float32)]).astype(float).round(3).tolist()
    [[0.707, 0.0, 0.707]]
    """
    rows = np.concatenate([part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12) for part in parts], axis=1)
    rows[~rows.any(axis=1)] = 1.0
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def quantised(vectors: NDArray[np.float32]) -> NDArray[np.int8]:
    """(n, d) int8 that point where (n, d) float32 do: each row scaled so that its largest value is 127 or -127. Raises InvalidInput: a row of zeros, NaN.

    The direction moves by less than a degree for rows whose largest value is under .4, as those of regions, so cosines by less than .002.

    >>> quantised(np.array([[0.6, -0.3]], np.float32)).tolist()
    [[127, -64]]
    """
    largest = np.abs(vectors).max(axis=1, keepdims=True) if vectors.size else np.ones((len(vectors), 1), np.float32)
    if not (np.isfinite(largest) & (largest > 0)).all():
        raise InvalidInput("A region's vector is zero, NaN or infinite.")
    return np.asarray(np.round(vectors * (127.0 / largest)), np.int8)


def nearest_region(
    query: NDArray[np.float32], vectors: NDArray[np.floating | np.signedinteger], counts: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """For each picture the cosine distance of the query to its nearest region, and the number of that region within the picture.

    query: (d,) unit. vectors: (n, d) of any number type and any length but 0, the regions of one picture after those of another. counts: (m,)
    how many each has, at least 1, n in all. Returns (m,) float32 in [0, 2] and (m,) int64; of equally near regions the first. Memory: BLOCK rows of
    float32 besides the vectors. Raises InvalidInput: other shapes, a picture without a region.
    """
    if query.ndim != 1 or vectors.ndim != 2 or vectors.shape[1] != len(query) or counts.sum() != len(vectors) or (counts < 1).any():
        raise InvalidInput(f"Expected a (d,) query and regions of as many pictures as counts, found {query.shape}, {vectors.shape}.")
    cosines = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK].astype(np.float32)
        cosines[start : start + BLOCK] = block @ query / np.sqrt(np.einsum("nd,nd->n", block, block))
    distances = np.clip(1.0 - cosines, 0.0, 2.0)
    if not len(counts):
        return distances, counts
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    best = np.minimum.reduceat(distances, starts)
    places = np.where(distances == np.repeat(best, counts), np.arange(len(vectors)) - np.repeat(starts, counts), len(vectors))
    return best, np.minimum.reduceat(places, starts).astype(np.int64)


def _places(cells: int) -> list[tuple[int, int]]:
    """(start, length) of the windows along one side, to its end."""
    length = min(SIDE, cells)
    starts = sorted({*range(0, cells - length + 1, STEP), cells - length})
    return [(start, length) for start in starts]
