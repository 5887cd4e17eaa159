"""Candidates and calibration rows looked at together: the score `adaptive`, for a batch whose pictures come from many moments."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from discovery.core.companions import Companions, adaptive_novelty, companion_distance
from discovery.core.draws import draw
from discovery.stages.novelty_views import Looked

POOL_ROWS = 20_000  # of candidates and calibration rows, among which companions are looked for
Vectors = NDArray[np.float32]
Blocks = Callable[[NDArray[np.int64]], Iterable[tuple[NDArray[np.int64], Vectors]]]


def look_together(ids: NDArray[np.bytes_], looked: Looked, blocks: Blocks, salt: str) -> Vectors:
    """(p,) adaptive novelty of all of a pool, candidates and calibration rows alike, in the order of ids.

    ids: (p,) S64, each once; looked: what was found of them by `knn`, in that order; blocks(places) gives the vectors of some of them, (b, d) float32, each
    block with its places. A pool of more than POOL_ROWS is represented by those that a hash with the salt draws. Nothing here depends on which rows are
    candidates, and it must not: that is what makes the p-values valid. Memory: the vectors of POOL_ROWS and a block.
    """
    apart = companion_distance(looked.closest)
    standing = np.sort(draw(ids, POOL_ROWS, salt))
    standing = standing[np.argsort(ids[standing], kind="stable")]
    vectors: Vectors | None = None
    order = np.full(len(ids), -1, np.int64)
    order[standing] = np.arange(len(standing))
    for places, part in blocks(standing):
        if vectors is None:
            vectors = np.empty((len(standing), part.shape[1]), np.float32)
        vectors[order[places]] = part
    assert vectors is not None  # a pool is not empty
    mean, distance = np.empty(len(ids), np.float32), np.empty(len(ids), np.float32)
    for places, part in blocks(np.arange(len(ids))):
        found = Companions.of(part, looked.novelty[places], vectors, looked.novelty[standing], apart)
        mean[places], distance[places] = found.novelty, found.distance
    return adaptive_novelty(looked.novelty, Companions(mean, distance))
