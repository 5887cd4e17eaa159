"""Vectors on a lattice where every dot product is exact in float32, so that all machines agree on who is nearer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from discovery.errors import InvalidInput

STEPS = 4000  # of a unit length; with the rounding of up to 36,000 dimensions a vector stays shorter than 4,096 steps
WHOLE = STEPS * STEPS  # similarity of a vector with itself, in whole numbers
_BLOCK = 16_384
_ONE = 4096  # steps are stored as fractions of it, a power of two, so that a product is a multiple of 2**-24


def on_lattice(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Unit rows rounded to whole steps, which are stored as fractions of 4,096.

    vectors: (n, d) float32 unit rows. Returns (n, d) float32 of lengths of about .977. A partial sum of a dot product of two such rows is a
    multiple of 2**-24 below 1, which float32 holds exactly: so the order of the sum, and with it the machine, its BLAS and the number of
    threads, does not matter. What is lost is about 1e-4 of a cosine. Raises InvalidInput for rows that are longer than 1.

    >>> rows = on_lattice(np.array([[0.6, 0.8], [1.0, 0.0]], np.float32))
    >>> whole_similarity(rows @ rows.T).tolist()
    [[16000000, 9600000], [9600000, 16000000]]
    """
    rows = np.empty(vectors.shape, np.float32)
    for start in range(0, len(rows), _BLOCK):  # in blocks, so that it takes no more memory than what it returns
        steps = np.rint(vectors[start : start + _BLOCK].astype(np.float32, copy=False) * np.float32(STEPS))
        lengths = np.einsum("ij,ij->i", steps, steps, dtype=np.float64)
        if not lengths.max() < _ONE * _ONE:
            raise InvalidInput(f"Expected finite rows of length 1, found one of length {float(np.sqrt(lengths.max())) / STEPS:.4g}.")
        np.divide(steps, np.float32(_ONE), out=rows[start : start + _BLOCK])
    return rows


def whole_similarity(dots: NDArray[np.float32]) -> NDArray[np.int64]:
    """Dot products of rows on the lattice as whole numbers, WHOLE for a cosine of 1; 0 for those below 0."""
    return np.asarray(np.maximum(dots, 0.0).astype(np.float64) * (_ONE * _ONE), np.int64)


def cosine(whole: NDArray[np.int64] | int) -> NDArray[np.float64]:
    """Whole similarities, or sums of them, as cosines.

    >>> float(cosine(9_600_000))
    0.6
    """
    return np.asarray(np.asarray(whole, np.int64) / WHOLE, np.float64)


def cosine_distance(distances: NDArray[np.float32]) -> NDArray[np.float64]:
    """What 1 less a dot product on the lattice is as a cosine distance of unit rows.

    >>> row = on_lattice(np.array([[0.6, 0.8]], np.float32))
    >>> cosine_distance(1 - row @ row.T).tolist()
    [[0.0]]
    """
    return np.asarray(np.maximum(1.0 - (1.0 - np.asarray(distances, np.float64)) * (_ONE / STEPS) ** 2, 0.0), np.float64)
