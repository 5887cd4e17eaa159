"""Novelty of vectors against a reference, by the view that is configured: the same function for candidates and for calibration rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from discovery.config import NoveltyConfig
from discovery.core.conformal import calibration_mask
from discovery.core.knn import exact_knn
from discovery.core.novelty import Gaussian, RankScale, combined, density_novelty, knn_novelty

TYPICAL_ROWS = 2000  # references whose own scores say what is usual, for `combined`
Vectors = NDArray[np.float32]


class NoveltyViews:
    """What is known of one reference, made ready once. No vector is compared with a reference of its own id."""

    def __init__(self, references: Vectors, reference_ids: Sequence[str], config: NoveltyConfig) -> None:
        """references: (r, d) unit rows, r > 1, which hold neither candidates nor calibration rows."""
        self._references, self._ids, self._config = references, reference_ids, config
        self._own: dict[int, float] = {}  # row of a reference: mean distance to its own nearest

    def novelty(self, vectors: Vectors, ids: Sequence[str]) -> Vectors:
        """(n,) float32 novelty of (n, d) unit rows by the view `novelty.score`; larger means more novel."""
        if self._config.score != "combined":
            return self._views[self._config.score](vectors, ids)
        scales = self._scales
        return combined(list(scales.values()), [self._views[name](vectors, ids) for name in scales])

    @cached_property
    def _views(self) -> dict[str, Callable[[Vectors, Sequence[str]], Vectors]]:
        return {"knn": self._knn, "mahalanobis": self._mahalanobis, "density": self._density}

    @cached_property
    def _gaussian(self) -> Gaussian:
        return Gaussian.of(self._references)

    @cached_property
    def _scales(self) -> dict[str, RankScale]:
        """Of each view, by references that stand for ordinary pictures; chosen by a hash of their ids with a salt of its own."""
        rows = np.flatnonzero(calibration_mask(self._ids, min(TYPICAL_ROWS, len(self._ids)), self._config.salt + "-typical"))
        ids = [self._ids[row] for row in rows.tolist()]
        return {name: RankScale.of(view(self._references[rows], ids)) for name, view in self._views.items()}

    def _knn(self, vectors: Vectors, ids: Sequence[str]) -> Vectors:
        return knn_novelty(self._nearest(vectors, ids)[1])

    def _mahalanobis(self, vectors: Vectors, ids: Sequence[str]) -> Vectors:
        return self._gaussian.novelty(vectors)

    def _density(self, vectors: Vectors, ids: Sequence[str]) -> Vectors:
        rows, distances = self._nearest(vectors, ids)
        unknown = np.array([row for row in np.unique(rows).tolist() if row not in self._own], np.int64)
        if len(unknown):
            _, own = self._nearest(self._references[unknown], [self._ids[row] for row in unknown.tolist()])
            self._own.update(zip(unknown.tolist(), own.mean(axis=1).tolist(), strict=True))
        theirs = np.array([[self._own[row] for row in each] for each in rows.tolist()], np.float32).reshape(rows.shape)
        return density_novelty(distances, theirs)

    def _nearest(self, vectors: Vectors, ids: Sequence[str]) -> tuple[NDArray[np.int64], Vectors]:
        return exact_knn(vectors, self._references, self._config.k, query_ids=ids, reference_ids=self._ids)
