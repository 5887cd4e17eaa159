"""An index snapshot that is open for queries: all its segments, without what was removed, answered as one and re-ranked exactly."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from discovery.adapters.cores import share_of_cores
from discovery.adapters.hnsw import NOTHING
from discovery.config import IndexConfig
from discovery.core.draws import ID_DIGITS
from discovery.core.knn import exact_knn
from discovery.errors import InvalidInput
from discovery.stages.segments import Ids, OpenSegment, open_segment
from discovery.types import IndexSnapshot, SegmentRef
from discovery.workspace import Workspace

EXACT_SELECTIVITY = 0.05  # under this share of rows a filter is searched exactly (ALGORITHMS section 1)
SPARE = 1.3  # times what a filter is expected to leave too little
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


class OpenIndex:
    """Rows are numbered through all segments: those of the first, then those of the second, … Removed ones have numbers too.

    One may be queried by many threads; it never changes, so that who holds one keeps what it was while newer snapshots come.
    """

    def __init__(self, segments: Sequence[OpenSegment], removed: Ids, dim: int, ef: int, config: IndexConfig) -> None:
        self.segments = list(segments)
        self.dim = dim
        self.ef = ef
        self.config = config
        self.starts = np.concatenate([[0], np.cumsum([len(segment.ids) for segment in self.segments])]).astype(np.int64)
        self.rows = int(self.starts[-1])
        self.alive = np.ones(self.rows, np.bool_)
        if len(removed):
            places = self.find(removed)
            self.alive[places[places >= 0]] = False
        self.dead = [int((~self.alive[self._part(number)]).sum()) for number in range(len(self.segments))]
        self.elements = int(self.alive.sum())

    def _part(self, number: int) -> slice:
        return slice(int(self.starts[number]), int(self.starts[number + 1]))

    def ids(self, rows: Rows) -> Ids:
        """S64 of any shape: the asset of each row; empty for a negative row."""
        found = np.zeros(rows.shape, f"S{ID_DIGITS}")
        for number, segment in enumerate(self.segments):
            mine = (rows >= self.starts[number]) & (rows < self.starts[number + 1])
            found[mine] = segment.ids[rows[mine] - self.starts[number]]
        return found

    def all_ids(self) -> Ids:
        """(n,) the asset of each row, removed or not."""
        return np.concatenate([segment.ids for segment in self.segments]) if self.segments else np.zeros(0, f"S{ID_DIGITS}")

    def vectors(self, rows: Rows) -> NDArray[np.float32]:
        """(n, d) the vectors of rows (n,)."""
        found = np.empty((len(rows), self.dim), np.float32)
        for number, segment in enumerate(self.segments):
            mine = np.flatnonzero((rows >= self.starts[number]) & (rows < self.starts[number + 1]))
            found[mine] = segment.vectors[rows[mine] - self.starts[number]]
        return found

    def find(self, ids: Ids) -> Rows:
        """(n,) the row of each id, -1 where no segment has it."""
        found = np.full(len(ids), NOTHING, np.int64)
        for number, segment in enumerate(self.segments):
            place = np.minimum(np.searchsorted(segment.ids, ids), len(segment.ids) - 1)
            hit = segment.ids[place] == ids
            found[hit] = place[hit] + self.starts[number]
        return found

    def starting_with(self, prefix: str) -> list[str]:
        """Up to two ids, removed ones too, that begin like this."""
        low = prefix.encode()
        found: set[str] = set()
        for segment in self.segments:
            start = int(np.searchsorted(segment.ids, np.array(low, f"S{ID_DIGITS}")))
            found.update(one.decode() for one in segment.ids[start : start + 2] if one.startswith(low))
        return sorted(found)[:2]

    def search(
        self, queries: NDArray[np.float32], k: int, *, allowed: Mask | None = None, without: Rows | None = None, ef: int | None = None,
        exact: bool | None = None,
    ) -> tuple[Rows, NDArray[np.float32]]:  # fmt: skip
        """The k nearest live rows of each query and their cosine distances in [0, 2], nearest first, ties by id.

        queries: (n, d) float32 unit vectors. allowed: (rows,) only these; k is met while so many are allowed. without: (n, m) or (m,) rows that are left
        out of each answer, -1 for none. ef: other than the certified one. exact: True reads all vectors, False uses
        every graph; None uses the graphs that are loaded, and loads one when it was asked often enough (config.exact_queries) for that to pay. Returns (n, k)
        int64 rows, -1 where there are no more, and (n, k) float32, inf there. Raises InvalidInput.
        """
        if queries.ndim != 2 or queries.dtype != np.float32 or queries.shape[1] != self.dim or k < 1:
            raise InvalidInput(f"Expected k >= 1 and (n, {self.dim}) float32, found k = {k} and {queries.shape} {queries.dtype}.")
        if not np.isfinite(queries).all():
            raise InvalidInput("Expected finite queries, found NaN or infinities.")
        n = len(queries)
        left_out = np.zeros((n, 0), np.int64) if without is None else np.broadcast_to(np.atleast_2d(without), (n, np.shape(without)[-1]))
        fetch = k + left_out.shape[1]
        open_rows = self.alive if allowed is None else self.alive & allowed
        found = [
            self._of_segment(number, queries, fetch, open_rows[self._part(number)], ef or self.ef, exact) for number in range(len(self.segments))
        ]
        rows = np.concatenate([*found, np.full((n, k), NOTHING, np.int64)], axis=1)
        for column in range(left_out.shape[1]):
            rows[(rows == left_out[:, column : column + 1]) & (rows >= 0)] = NOTHING
        return self._ranked(queries, rows, k)

    def _of_segment(
        self, number: int, queries: NDArray[np.float32], k: int, is_open: Mask, ef: int, exact: bool | None
    ) -> Rows:
        """(n, <= k) the nearest open rows of one segment in some order, NOTHING where there are no more."""
        segment = self.segments[number]
        total, left = len(is_open), int(is_open.sum())
        n = len(queries)
        if left == 0 or n == 0:
            return np.zeros((n, 0), np.int64)
        if not self._by_graph(segment, n, left / total, exact):
            return self._exact(number, queries, k, is_open)
        share = left / total
        fetch = min(total, k if share == 1.0 else int(np.ceil(SPARE * k / share)))
        rows = np.full((n, k), NOTHING, np.int64)
        waiting = np.arange(n)
        while len(waiting):
            if fetch > total * EXACT_SELECTIVITY and fetch > 4 * k:  # to walk a graph so far costs more than to read the rows
                rows[waiting, : min(k, left)] = self._exact(number, queries[waiting], k, is_open)
                break
            labels, _ = segment.graph.query(np.ascontiguousarray(queries[waiting]), fetch, max(ef, fetch), share_of_cores())
            good = (labels >= 0) & is_open[labels]
            order = np.argsort(~good, axis=1, kind="stable")[:, :k]  # the open ones first, in their order
            kept = np.where(np.take_along_axis(good, order, axis=1), np.take_along_axis(labels, order, axis=1) + self.starts[number], NOTHING)
            rows[waiting[:, None], np.arange(kept.shape[1])] = kept
            waiting = waiting[good.sum(axis=1) < min(k, left)]
            fetch *= 4
        return rows

    def _by_graph(self, segment: OpenSegment, queries: int, share: float, exact: bool | None) -> bool:
        if not segment.has_graph or exact or share <= EXACT_SELECTIVITY:
            return False
        if exact is False or segment.is_loaded:
            return True
        segment.exact_queries += queries  # what was spent on reading vectors; when it reaches the cost of loading, load
        return segment.exact_queries > self.config.exact_queries

    def _exact(self, number: int, queries: NDArray[np.float32], k: int, is_open: Mask) -> Rows:
        segment = self.segments[number]
        if is_open.all():
            rows, _ = exact_knn(queries, segment.vectors, k)
            return np.asarray(rows + self.starts[number], np.int64)
        chosen = np.flatnonzero(is_open)
        rows, _ = exact_knn(queries, segment.vectors, k, reference_rows=chosen)
        return np.asarray(chosen[rows] + self.starts[number], np.int64)

    def _ranked(self, queries: NDArray[np.float32], rows: Rows, k: int) -> tuple[Rows, NDArray[np.float32]]:
        """The k nearest of the candidates (n, c) by distances from the stored vectors, which do not depend on who proposed them."""
        owner, place = np.nonzero(rows >= 0)
        chosen = rows[owner, place]
        products = np.empty(len(chosen))
        for start in range(0, len(chosen), 65536):
            part = slice(start, start + 65536)
            products[part] = np.einsum("ij,ij->i", queries[owner[part]], self.vectors(chosen[part]), dtype=np.float64)
        distances = np.full(rows.shape, np.inf, np.float32)
        distances[owner, place] = np.clip(1.0 - products, 0.0, 2.0)
        order = np.argsort(distances, axis=1, kind="stable")
        rows, distances = np.take_along_axis(rows, order, axis=1), np.take_along_axis(distances, order, axis=1)
        tied = np.flatnonzero(((distances[:, 1:] == distances[:, :-1]) & np.isfinite(distances[:, 1:])).any(axis=1))
        for row in tied:
            by_id = np.lexsort((self.ids(rows[row]), distances[row]))
            rows[row], distances[row] = rows[row, by_id], distances[row, by_id]
        return rows[:, :k], distances[:, :k]


KEPT_OPEN = 2  # snapshots that a workspace keeps open
_opening = threading.Lock()


def open_index(snapshot: IndexSnapshot, ws: Workspace) -> OpenIndex:
    """A snapshot, mapped into memory; the last ones that were asked for stay open. Raises CorruptArtifact, EncoderMismatch."""
    with _opening:
        recent: dict[str, OpenIndex] = ws.cache.setdefault("indexes", {})
        found = recent.pop(snapshot.id, None)
        if found is None:
            removed = tombstones(snapshot, ws)
            found = open_segments(snapshot.segments, removed, snapshot.encoder_id, snapshot.dim, snapshot.ef_search, ws)
        recent[snapshot.id] = found
        while len(recent) > KEPT_OPEN:
            del recent[next(iter(recent))]
        return found


def open_segments(refs: Sequence[SegmentRef], removed: Ids, encoder_id: str, dim: int, ef: int, ws: Workspace) -> OpenIndex:
    """Some segments as one index, without the removed assets."""
    return OpenIndex([open_segment(ref, encoder_id, ws) for ref in refs], removed, dim, ef, ws.config.index)


def tombstones(snapshot: IndexSnapshot | None, ws: Workspace) -> Ids:
    """Ids, ascending, that a snapshot's segments hold and that are removed all the same."""
    if snapshot is None or not snapshot.removed:
        return np.zeros(0, f"S{ID_DIGITS}")
    column = ws.store.read_table(snapshot, "tombstones")["asset_id"]
    return np.sort(np.array(column.to_pylist(), f"S{ID_DIGITS}"))
