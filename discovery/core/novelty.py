"""Novelty scores from distances to references; higher is more novel, before any calibration."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from discovery.errors import EmptyReference


def knn_novelty(distances: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean distance to the k nearest references; larger means more novel.

    distances: (n, k) float32, cosine distance in [0, 2], each row ascending. Returns (n,) float32 in [0, 2]. Raises EmptyReference
    when k is 0. Source: Sun et al. 2022, "Out-of-Distribution Detection with Deep Nearest Neighbors"; theirs is the k-th distance.

    >>> knn_novelty(np.array([[0.0, 0.2]], dtype=np.float32))
    array([0.1], dtype=float32)
    """
    if distances.shape[1] == 0:
        raise EmptyReference("No references: novelty is not defined.")
    return np.asarray(distances.mean(axis=1), np.float32)


def density_novelty(distances: NDArray[np.float32], neighbour_distances: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much farther its neighbours are than theirs are; 1 is typical, larger is rarer, also inside known data.

    distances: (n, k) to the nearest references. neighbour_distances: (n, k) mean distance of each of those references to its own k
    nearest. Returns (n,) float32. Source: Breunig et al. 2000, "LOF", without the reachability smoothing.

    >>> density_novelty(np.array([[0.2, 0.4]], np.float32), np.array([[0.1, 0.2]], np.float32))
    array([2.], dtype=float32)
    """
    if distances.shape[1] == 0:
        raise EmptyReference("No references: novelty is not defined.")
    smallest = np.finfo(np.float32).tiny
    return np.asarray(distances.mean(axis=1) / np.maximum(neighbour_distances.mean(axis=1), smallest), np.float32)
