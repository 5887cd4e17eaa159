"""Novelty of pictures beside those that came with them: what is new seldom comes alone.

One new picture among hundreds can hardly be told from an odd one of a known kind. Several that are alike can: each is far from what is known, and so are those most
like it. A score that uses this looks at candidates and calibration rows *together*, as one pool in which it is not told which is which. An ordinary
candidate then stays exchangeable with the calibration rows, so that conformal p-values hold and Benjamini-Hochberg controls the false discoveries of the
batch (Marandon, Lei, Mary and Roquain 2024, "Adaptive novelty detection with false discovery rate guarantee", Annals of Statistics 52). It
does not hold for one calibration set in particular, since the scores of its rows change with each batch.

What must not be taken for news is a burst, or an event: many pictures of one ordinary thing, which the reference has singly. So pictures that are as near to
each other as ordinary ones are to their nearest reference are no companions of each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COMPANIONS = 10  # of the pool, nearest first, that a picture is looked at beside
MOST = 2.0  # times as near to its companions, for its distance from the reference, as is usual in the pool: more than that counts no more
LEAST_DISTANCE = 1e-6  # of vectors that are equal but for rounding


def companion_distance(nearest: NDArray[np.float32]) -> float:
    """The cosine distance under which two of the pool are no companions: the median of the distances to the nearest reference.

    nearest: (p,) float32, in [0, 2], of all of the pool; p is 1 at least.
    """
    return max(float(np.median(nearest)), LEAST_DISTANCE)


@dataclass(frozen=True, slots=True)
class Companions:
    """Of some rows: (n,) the mean novelty of each and its companions, and the mean distance to these, NaN where it has none."""

    novelty: NDArray[np.float32]
    distance: NDArray[np.float32]

    @classmethod
    def of(
        cls, vectors: NDArray[np.float32], novelty: NDArray[np.float32], pool: NDArray[np.float32], pool_novelty: NDArray[np.float32], apart: float, block: int = 1024
    ) -> Companions:  # fmt: skip
        """Of (n, d) float32 unit rows with their (n,) novelty, among a pool of (p, d) with its (p,), which contains them; larger is more novel.

        apart: a cosine distance in [0, 2], of `companion_distance`; a row is no companion of itself, being nearer. Memory: block * p floats, a few times.
        """
        n, m = len(vectors), min(COMPANIONS, len(pool))
        mean, distance = novelty.astype(np.float32, copy=True), np.full(n, np.nan, np.float32)
        for start in range(0, n, block):
            mine = slice(start, min(start + block, n))
            similarity = vectors[mine] @ pool.T
            similarity[similarity > 1.0 - apart] = -np.inf
            rows = np.argpartition(-similarity, m - 1, axis=1)[:, :m]
            near = np.take_along_axis(similarity, rows, axis=1)
            is_one = np.isfinite(near)
            count = is_one.sum(axis=1)
            mean[mine] = (mean[mine] + np.where(is_one, pool_novelty[rows], 0.0).sum(axis=1)) / (count + 1)
            some = count > 0
            distance[mine][some] = (np.where(is_one, 1.0 - near, 0.0).sum(axis=1)[some] / count[some]).astype(np.float32)
        return cls(mean, distance)


def adaptive_novelty(novelty: NDArray[np.float32], companions: Companions) -> NDArray[np.float32]:
    """(p,) novelty beside companions, of all of the pool at once; larger means more novel, in the unit of `novelty`, here a cosine distance.

    The mean novelty of a picture and its companions, times the square root of how near these are for its own distance from the reference: of the
    ratio of both, over the pool's median of it, up to MOST. Where pictures of the batch are denser than the reference is about them, the ratio is large: it estimates
    a power of the ratio of two densities by nearest neighbours. novelty: (p,) of `knn_novelty`, of candidates and calibration rows alike.

    Of four that are as far from the reference, the second has companions that are as far, the third has nearer ones besides:

    >>> companions = Companions(np.array([0.1, 0.2, 0.2, 0.1], np.float32), np.array([0.2, 0.2, 0.1, 0.2], np.float32))
    >>> adaptive_novelty(np.full(4, 0.2, np.float32), companions).astype(float).round(2).tolist()
    [0.1, 0.2, 0.28, 0.1]
    """
    ratio = np.maximum(novelty, LEAST_DISTANCE) / np.maximum(companions.distance, LEAST_DISTANCE)
    has = np.isfinite(ratio)
    usual = float(np.median(ratio[has])) if has.any() else 1.0
    closeness = np.where(has, np.minimum(ratio / usual, MOST), 1.0)
    return np.asarray(companions.novelty * np.sqrt(closeness), np.float32)
