"""From which similarity on an encoder's vectors propose a copy: whitened on a library, measured on planted copies of its pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from discovery.core.binomial import share_lower_bound
from discovery.core.projection import Projection, fit_projection
from discovery.errors import InvalidInput

DIM = 256  # axes kept; of EfficientNet-lite0's 1,280, with 64 and 128 crops need 2 and 1.5 times as many proposals for the same recall
LEAST_ROWS = 200
SAMPLE = 4000  # rows among which proposals are counted


@dataclass(frozen=True, slots=True)
class CosineCalibration:
    """Propose pairs whose cosine after `projection` is at least `threshold`.

    recall: share of the planted copies that only vectors can find and that are proposed; over `recall_lower_bound` with a confidence of
    95 %. proposals_per_asset: pairs of the library at or above the threshold, over its assets.
    """

    projection: Projection
    threshold: float
    recall: float
    recall_lower_bound: float
    proposals_per_asset: float


def calibrate_cosine(
    library: NDArray[np.float32], originals: NDArray[np.float32], copies: NDArray[np.float32], recall: float = 0.985, most_proposals: float = 8.0
) -> CosineCalibration:
    """The highest threshold that proposes the wanted share of the copies, or the lowest that proposes at most so many pairs an asset.

    library: (n, d) unit vectors of different pictures, as a whole. originals, copies: (m, d) row by row a picture and a planted copy that hashes
    do not find. Deterministic. Raises InvalidInput for fewer than 200 pictures or no copy.
    """
    n, d = library.shape
    if n < LEAST_ROWS or not len(copies):
        raise InvalidInput(f"A calibration needs {LEAST_ROWS} pictures and some copies; there are {n} and {len(copies)}.")
    projection = fit_projection(library, min(DIM, d, n // 4), 1.0)
    similar = np.sort((projection(originals).astype(np.float64) * projection(copies)).sum(axis=1))
    rows = projection(library[np.linspace(0, n - 1, min(n, SAMPLE)).astype(np.int64)])
    pairs = np.sort((rows @ rows.T)[np.triu_indices(len(rows), 1)])
    scale = (n - 1) / (len(rows) - 1) / len(rows)  # from pairs of the sample to pairs an asset of the library
    wanted = similar[int(np.floor((1 - recall) * len(similar)))]
    allowed = max(1, int(most_proposals / scale))
    threshold = float(max(wanted, pairs[-allowed] if allowed <= len(pairs) else -1.0))
    threshold = float(np.floor(threshold * 1000) / 1000)  # three digits are enough to say it
    hits = int((similar >= threshold).sum())
    return CosineCalibration(
        projection, threshold, hits / len(similar), share_lower_bound(hits, len(similar)), float((pairs >= threshold).sum() * scale)
    )
