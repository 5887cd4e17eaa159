"""How lonely each of many vectors is, counted so that the counts do not depend on the machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SCALE = 4000.0  # a unit vector in whole numbers: no partial sum of products passes 4,000 squared, so float32 adds them without rounding
NEAR = 5  # the radius is the median distance of references to their fifth nearest
BLOCK = 8192  # rows at a time


def neighbour_counts(vectors: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) how many of the references vectors[rows] lie within the usual distance of each vector, itself not counted: 0 for lone ones.

    vectors: (n, d) float32 unit rows. Products are of whole numbers and exact, so that any order of adding, and any processor, gives the same
    counts. Memory: 8,192 * len(rows) floats. All 0 for fewer than six references.

    >>> neighbour_counts(np.eye(8, dtype=np.float32)[[0] * 7 + [1]], np.arange(8)).tolist()
    [6, 6, 6, 6, 6, 6, 6, 0]
    """
    counts = np.zeros(len(vectors), np.int64)
    if len(rows) <= NEAR:
        return counts
    references = np.rint(vectors[rows] * np.float32(SCALE))
    own = np.full(len(vectors), -1, np.int64)
    own[rows] = np.arange(len(rows))
    between = references @ references.T
    np.fill_diagonal(between, -np.inf)
    least = np.median(np.partition(between, len(rows) - NEAR, axis=1)[:, len(rows) - NEAR])
    for start in range(0, len(vectors), BLOCK):
        alike = np.rint(vectors[start : start + BLOCK] * np.float32(SCALE)) @ references.T >= least
        self_place = own[start : start + BLOCK]
        counted = alike.sum(axis=1)
        counts[start : start + BLOCK] = counted - ((self_place >= 0) & alike[np.arange(len(alike)), self_place])
    return counts
