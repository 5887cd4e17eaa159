"""Novelty scores against references; higher is more novel, before any calibration.

Three views: far from its nearest references (`knn_novelty`), unlike all of them as a whole (`Gaussian`), lonelier than its neighbours are
(`density_novelty`). They have no common unit, so they are combined by rank (`RankScale`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from discovery.errors import EmptyReference, InvalidInput

LEAST_DISTANCE = 1e-6  # cosine distances of equal vectors are that far from 0 by rounding


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
    return np.asarray(distances.mean(axis=1) / np.maximum(neighbour_distances.mean(axis=1), LEAST_DISTANCE), np.float32)


@dataclass(frozen=True, slots=True)
class Gaussian:
    """The mean of references, and what makes their shrunk covariance the unit matrix."""

    mean: NDArray[np.float64]  # (d,)
    whitening: NDArray[np.float64]  # (d, d)
    shrinkage: float  # in [0, 1]: 1 is a ball

    @classmethod
    def of(cls, blocks: Callable[[], Iterable[NDArray[np.float32]]]) -> Gaussian:
        """Fit to r unit rows of d, given as (b, d) blocks in two passes. Memory: a block and a few d * d floats.

        The covariance is shrunk towards a ball by as much as Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance
        matrices", found to be best, so that r may be smaller than d. Raises EmptyReference for fewer than three rows, or equal ones.
        """
        r, total = 0, np.zeros(0)
        for block in blocks():
            total = block.sum(axis=0, dtype=np.float64) + (total if r else 0.0)
            r += len(block)
        if r < 3:
            raise EmptyReference(f"{r} references: a shrunk covariance needs three at least.")
        mean, d = total / r, len(total)
        covariance, fourth = np.zeros((d, d)), 0.0
        for block in blocks():
            centred = block - mean
            covariance += centred.T @ centred
            fourth += float((np.einsum("ij,ij->i", centred, centred) ** 2).sum())
        covariance /= r
        scale = float(np.trace(covariance)) / d
        if scale <= 0:
            raise EmptyReference("All references are equal: they have no covariance.")
        spread = float((covariance**2).sum())
        from_ball = spread - d * scale**2
        error = min((fourth / r - spread) / r, from_ball)
        shrinkage = error / from_ball if from_ball > 0 else 1.0
        values, axes = np.linalg.eigh((1 - shrinkage) * covariance + shrinkage * scale * np.eye(d))
        least = np.finfo(np.float64).eps * d * values[-1]
        return cls(mean, axes / np.sqrt(np.maximum(values, least)), shrinkage)

    def novelty(self, vectors: NDArray[np.float32], block: int = 8192) -> NDArray[np.float32]:
        """(n,) Mahalanobis distance of (n, d) unit rows from the mean; larger means more novel.

        Vectors are of unit length, without which the distance is mostly one of lengths. Source: Mueller and Hein 2025, "Mahalanobis++: Improving
        OOD Detection via Feature Normalization"; here of one Gaussian, since there are no labels.
        """
        found = np.empty(len(vectors), np.float32)
        for start in range(0, len(vectors), block):
            found[start : start + block] = np.linalg.norm((vectors[start : start + block] - self.mean) @ self.whitening, axis=1)
        return found


@dataclass(frozen=True, slots=True)
class RankScale:
    """Where scores lie among those of typical rows: near 0 at the least of them and below, near 1 at the largest, and on beyond that."""

    typical: NDArray[np.float64]  # (m,), ascending, each once
    ranks: NDArray[np.float64]  # (m,) in (0, 1)
    slope: float  # of the ranks beyond the last one

    @classmethod
    def of(cls, typical: NDArray[np.float32]) -> RankScale:
        """Of the scores of rows that are neither candidates nor calibration rows; with these the p-values would not be valid.

        Beyond the largest a rank grows as it does over the upper tenth. Raises InvalidInput for fewer than ten scores or NaN.
        """
        if len(typical) < 10 or not np.isfinite(typical).all():
            raise InvalidInput(f"Expected ten typical scores or more, all finite, found {len(typical)}.")
        ordered = np.sort(typical.astype(np.float64))
        values = np.unique(ordered)
        ranks = np.searchsorted(ordered, values, side="right") / (len(ordered) + 1)
        upper = float(np.quantile(values, 0.9))
        span = float(values[-1]) - upper
        return cls(values, ranks, 0.1 / span if span > 0 else 1.0)

    def rank(self, scores: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n,) ranks of (n,) scores, growing with them."""
        beyond = np.maximum(scores - self.typical[-1], 0.0) * self.slope
        return np.asarray(np.interp(scores, self.typical, self.ranks) + beyond)


def combined(scales: Sequence[RankScale], scores: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """(n,) mean rank of the scores of several views; larger means more novel.

    >>> scale = RankScale.of(np.arange(19, dtype=np.float32))
    >>> [round(float(rank), 3) for rank in combined([scale, scale], [np.array([9.0, 20.0], np.float32)] * 2)]
    [0.5, 1.061]
    """
    return np.asarray(np.mean([scale.rank(score) for scale, score in zip(scales, scores, strict=True)], axis=0), np.float32)
