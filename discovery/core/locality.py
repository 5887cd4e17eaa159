"""An order of many queries in which those that come after one another are alike, so that they find in the caches what the one before them read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def chain(landmarks: NDArray[np.float32]) -> NDArray[np.int64]:
    """(n,) an order of unit vectors (n, d): from the first to the nearest that is left, and so on.

    >>> chain(np.array([[1, 0], [-1, 0], [0.8, 0.6]], np.float32)).tolist()
    [0, 2, 1]
    """
    n = len(landmarks)
    similarity = landmarks @ landmarks.T
    order = np.zeros(n, np.int64)
    similarity[:, 0] = -np.inf
    for step in range(1, n):
        order[step] = similarity[order[step - 1]].argmax()
        similarity[:, order[step]] = -np.inf
    return order


def order_alike(queries: NDArray[np.float32], landmarks: NDArray[np.float32]) -> NDArray[np.int64]:
    """(n,) an order of queries (n, d) by the nearest landmark (l, d) of each, landmarks in the order given. Unit vectors. Memory: n * l floats."""
    return np.asarray(np.argsort((queries @ landmarks.T).argmax(axis=1), kind="stable"), np.int64)
