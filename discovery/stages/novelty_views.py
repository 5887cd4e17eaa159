"""Novelty of vectors against a reference, by the view that is configured: the same function for candidates and for calibration rows."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from discovery.config import NoveltyConfig
from discovery.core.draws import draw
from discovery.core.novelty import Gaussian, RankScale, combined, density_novelty, knn_novelty
from discovery.stages.open_index import OpenIndex

NEAREST = 5  # references shown for each candidate
TYPICAL_ROWS = 2000  # references whose own scores say what is usual, for `combined`
ROWS_AT_ONCE = 8192
SPARE = 1.3  # times as many neighbours are asked for as are expected to be enough
Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]
VIEWS = ("knn", "mahalanobis", "density")


@dataclass(frozen=True, slots=True)
class Looked:
    """Some vectors beside a reference; density is empty where it was not asked for.

    novelty: (n,) float32 by the configured view, density: (n,) float32; larger is more novel. closest: (n,) distance to the nearest of the references that
    scores are made of. nearest: (n, NEAREST) rows of the index, held-out ones among them, nearest first, -1 where there are no more, and their
    cosine distances in [0, 2].
    """

    novelty: Vectors
    density: Vectors
    closest: Vectors
    nearest: Rows
    nearest_distance: Vectors


class NoveltyViews:
    """What is known of one reference, made ready once. No vector is compared with a reference of its own row.

    The references are rows of an index, some of which are held out: they are shown as neighbours, but enter no score. One search in the index
    gives both. All rows, candidates and held-out ones, are looked up in the same way, with the same ef.
    """

    def __init__(self, index: OpenIndex, references: Rows, held_out: Rows, config: NoveltyConfig, *, exact: bool = True) -> None:
        """references: (r,) rows of the index, ascending; held_out: (c,) of these, c < r. exact: read all vectors, or walk the graphs."""
        self._index, self._config, self._exact = index, config, exact
        self._view = "knn" if config.score in ("auto", "adaptive") else config.score  # what companions are looked at beside (`novelty_pool`)
        self._shown = np.zeros(index.rows, np.bool_)
        self._shown[references] = True
        self._proper = self._shown.copy()
        self._proper[held_out] = False
        self._rows = np.flatnonzero(self._proper)
        self._k = min(config.k, len(self._rows) - 1)
        self._own = np.full(index.rows, np.nan, np.float32)  # of a reference: mean distance to its own nearest
        self._owns = threading.Lock()

    def look(self, vectors: Vectors, own: Rows | None = None, *, density: bool = False) -> Looked:
        """(n, d) unit rows beside the reference. own: (n,) their own rows in the index. density: also by that view."""
        nearest, near_distance, rows, distances = self._neighbours(vectors, own)
        scored: dict[str, Vectors] = {}
        wanted = VIEWS if self._view == "combined" else (self._view,)
        for name in {*wanted, *(["density"] if density else [])}:
            scored[name] = self._score(name, vectors, rows, distances)
        if self._view == "combined":
            novelty = combined([self._scales[name] for name in VIEWS], [scored[name] for name in VIEWS])
        else:
            novelty = scored[self._view]
        return Looked(novelty, scored["density"] if density else np.zeros(0, np.float32), distances[:, 0], nearest, near_distance)

    def look_at_blocks(self, blocks: Iterable[tuple[Rows, Vectors]], *, density: bool = False) -> Iterator[tuple[Rows, Looked]]:
        """Blocks of vectors, each with what it is called by, beside the reference, in order.

        Two are looked at at a time: while one walks the graphs with all threads, the other is made ready by one, which matters where there are many
        threads (benchmarks/results/novelty_cost.txt). density as in `look`. Memory: four blocks.
        """
        waiting: deque[tuple[Rows, Future[Looked]]] = deque()
        with ThreadPoolExecutor(2) as pool:
            for places, vectors in blocks:
                waiting.append((places, pool.submit(self.look, vectors, density=density)))
                if len(waiting) > 2:
                    first, found = waiting.popleft()
                    yield first, found.result()
            for first, found in waiting:
                yield first, found.result()

    def look_at_rows(self, rows: Rows, *, density: bool = False) -> Looked:
        """Some of the index's own rows beside the reference, a block at a time."""
        parts = [
            self.look(self._index.vectors(part), part, density=density)
            for part in (rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE))
        ]
        return Looked(*(np.concatenate([getattr(part, name) for part in parts]) for name in Looked.__slots__))

    def _score(self, name: str, vectors: Vectors, rows: Rows, distances: Vectors) -> Vectors:
        if name == "knn":
            return knn_novelty(distances)
        if name == "mahalanobis":
            return self._gaussian.novelty(vectors)
        return density_novelty(distances, self._own_distances(rows))

    @cached_property
    def _gaussian(self) -> Gaussian:
        def blocks() -> Iterator[Vectors]:
            for start in range(0, len(self._rows), ROWS_AT_ONCE):
                yield self._index.vectors(self._rows[start : start + ROWS_AT_ONCE])

        return Gaussian.of(blocks)

    @cached_property
    def _scales(self) -> dict[str, RankScale]:
        """Of each view, by references that stand for ordinary pictures; chosen by a hash of their ids with a salt of its own."""
        typical = self._rows[draw(self._index.ids(self._rows), TYPICAL_ROWS, self._config.salt + "-typical")]
        vectors = self._index.vectors(typical)
        _, _, rows, distances = self._neighbours(vectors, typical)
        return {name: RankScale.of(self._score(name, vectors, rows, distances)) for name in VIEWS}

    def _own_distances(self, rows: Rows) -> Vectors:
        """Of rows of any shape the mean distance to their own nearest references, each computed once."""
        with self._owns:
            unknown = np.unique(rows)
            unknown = unknown[np.isnan(self._own[unknown])]
            for start in range(0, len(unknown), ROWS_AT_ONCE):
                part = unknown[start : start + ROWS_AT_ONCE]
                self._own[part] = knn_novelty(self._neighbours(self._index.vectors(part), part)[3])
        return self._own[rows]

    def _neighbours(self, vectors: Vectors, own: Rows | None) -> tuple[Rows, Vectors, Rows, Vectors]:
        """The nearest to show, with distances, and the k nearest that scores are made of, with distances."""
        index, n = self._index, len(vectors)
        without = None if own is None or (own < 0).all() else own[:, None]
        shown, k = int(self._shown.sum()), self._k
        wanted = max(NEAREST, k) if shown == len(self._rows) else max(NEAREST, int(np.ceil(SPARE * k * shown / len(self._rows))))
        allowed = None if shown == index.elements == index.rows else self._shown
        found, apart = index.search(vectors, min(wanted, shown), allowed=allowed, without=without, exact=self._exact)
        is_proper = (found >= 0) & self._proper[found]
        order = np.argsort(~is_proper, axis=1, kind="stable")[:, :k]
        rows, distances = np.take_along_axis(found, order, axis=1), np.take_along_axis(apart, order, axis=1)
        short = np.flatnonzero(is_proper.sum(axis=1) < k)
        if len(short):  # near ones that are held out left too few
            rows[short], distances[short] = index.search(
                vectors[short], k, allowed=self._proper, without=None if without is None else without[short], exact=self._exact
            )
        nearest = np.full((n, NEAREST), -1, np.int64)
        near_distance = np.full((n, NEAREST), np.inf, np.float32)
        width = min(NEAREST, found.shape[1])
        nearest[:, :width], near_distance[:, :width] = found[:, :width], apart[:, :width]
        return nearest, near_distance, rows, distances
