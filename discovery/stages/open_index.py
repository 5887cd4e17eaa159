"""An index snapshot that is open for queries: all its segments, without what was removed, answered as one and re-ranked exactly."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from discovery.adapters.cores import share_of_cores
from discovery.adapters.hnsw import NOTHING, HnswSegment, check_vectors
from discovery.config import IndexConfig
from discovery.core.draws import ID_DIGITS
from discovery.core.knn import exact_knn
from discovery.core.locality import chain, order_alike
from discovery.errors import InvalidInput
from discovery.stages.segments import Ids, open_segment
from discovery.types import IndexSnapshot, SegmentRef
from discovery.workspace import Workspace

EXACT_SELECTIVITY = 0.05  # under this share of rows a filter is searched exactly (ALGORITHMS section 1)
SLACK = 4  # candidates beyond the k that are ranked exactly: proposed distances are off by float32 rounding only
RANKED_AT_ONCE = 4096  # candidates, whose vectors then fit into a cache
MANY = 512  # queries, from which on their order is worth finding
LANDMARKS = 1024  # rows that tell which queries are alike
SPARE = 1.3  # times what a filter is expected to leave too little
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


class AnySegment(Protocol):
    """What an index asks of its segments. name: of their content."""

    name: str
    ids: Ids
    vectors: NDArray[np.float32]
    exact_queries: int

    @property
    def has_graph(self) -> bool: ...  # noqa: D102
    @property
    def is_loaded(self) -> bool: ...  # noqa: D102
    @property
    def graph(self) -> HnswSegment: ...  # noqa: D102


class MemorySegment:
    """Ids and vectors that are in memory, as a segment without a graph: to be searched exactly, alone or beside others."""

    has_graph = is_loaded = False
    exact_queries = 0
    name = "in memory"

    def __init__(self, ids: Ids, vectors: NDArray[np.float32]) -> None:
        """ids: (n,) S64 in any order, each once. vectors: (n, d) float32 unit rows."""
        order = np.argsort(ids, kind="stable")
        self.ids, self.vectors = ids[order], np.ascontiguousarray(vectors[order])

    @property
    def graph(self) -> HnswSegment:
        """There is none: InvalidInput."""
        raise InvalidInput("These vectors are searched exactly.")


class OpenIndex:
    """Rows are numbered through all segments: those of the first, then those of the second, … Removed ones have numbers too.

    One may be queried by many threads; it never changes, so that who holds one keeps what it was while newer snapshots come.
    """

    def __init__(self, segments: Sequence[AnySegment], removed: Ids, dim: int, ef: int, config: IndexConfig) -> None:
        self.segments = list(segments)
        self.dim = dim
        self.ef = ef
        self.config = config
        self.threads = share_of_cores()  # that a batch of queries is spread over
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
        if len(self.segments) == 1:
            np.take(self.segments[0].vectors, rows, axis=0, out=found, mode="clip")
            return found
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
        if k < 1:
            raise InvalidInput(f"Expected k >= 1, found {k}.")
        check_vectors(queries, self.dim)
        left_out = None if without is None else np.broadcast_to(np.atleast_2d(without), (len(queries), np.shape(without)[-1]))
        if len(queries) < MANY or exact or not any(segment.has_graph for segment in self.segments):
            return self._search(queries, k, allowed, left_out, ef, exact)
        order = order_alike(queries, self._landmarks)
        rows, distances = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        rows[order], distances[order] = self._search(
            queries[order], k, allowed, None if left_out is None else left_out[order], ef, exact
        )
        return rows, distances

    @functools.cached_property
    def _landmarks(self) -> NDArray[np.float32]:
        """(l, d) rows from all places, which are random since rows are ordered by id, in a chain."""
        found = self.vectors(np.linspace(0, self.rows - 1, min(self.rows, LANDMARKS)).astype(np.int64))
        return found[chain(found)]

    def _search(
        self, queries: NDArray[np.float32], k: int, allowed: Mask | None, left_out: Rows | None, ef: int | None, exact: bool | None
    ) -> tuple[Rows, NDArray[np.float32]]:
        """`search`, of checked queries in the order given. left_out: (n, m)."""
        fetch = k if left_out is None else k + left_out.shape[1]
        open_rows = None if allowed is None and self.elements == self.rows else self.alive if allowed is None else self.alive & allowed
        found = [
            self._of_segment(number, queries, fetch, None if open_rows is None else open_rows[self._part(number)], ef or self.ef, exact)
            for number in range(len(self.segments))
        ]
        rows = np.concatenate([one for one, _ in found], axis=1) if len(found) != 1 else found[0][0]
        proposed = np.concatenate([one for _, one in found], axis=1) if len(found) != 1 else found[0][1]
        if left_out is not None:
            for column in range(left_out.shape[1]):
                dropped = (rows == left_out[:, column : column + 1]) & (rows >= 0)
                rows, proposed = np.where(dropped, NOTHING, rows), np.where(dropped, np.inf, proposed)
        return self._ranked(queries, rows, proposed, k)

    def _of_segment(
        self, number: int, queries: NDArray[np.float32], k: int, is_open: Mask | None, ef: int, exact: bool | None
    ) -> tuple[Rows, NDArray[np.float32]]:
        """(n, <= k) the nearest open rows of one segment in some order, NOTHING where there are no more, and their distances. is_open: None for all."""
        segment = self.segments[number]
        n, total = len(queries), len(segment.ids)
        left = total if is_open is None else int(is_open.sum())
        if left == 0:
            return np.zeros((n, 0), np.int64), np.zeros((n, 0), np.float32)
        if not self._by_graph(segment, n, left / total, exact):
            return self._exact(number, queries, k, is_open)
        if left == total and k <= total:
            rows, distances = segment.graph.query(queries, k, max(ef, k), self.threads, is_checked=True)
            if rows[:, 0].min() >= 0:
                return (rows + self.starts[number] if number else rows), distances
        share = left / total
        fetch = min(total, k if share == 1.0 else int(np.ceil(SPARE * k / share)))
        rows, distances = np.full((n, k), NOTHING, np.int64), np.full((n, k), np.inf, np.float32)
        waiting = np.arange(n)
        while len(waiting):
            if fetch > total * EXACT_SELECTIVITY and fetch > 4 * k:  # to walk a graph so far costs more than to read the rows
                found, apart = self._exact(number, queries[waiting], k, is_open)
                rows[waiting, : found.shape[1]], distances[waiting, : found.shape[1]] = found, apart
                break
            labels, apart = segment.graph.query(np.ascontiguousarray(queries[waiting]), fetch, max(ef, fetch), self.threads, is_checked=True)
            good = labels >= 0
            if is_open is not None:
                good &= is_open[labels]
            order = np.argsort(~good, axis=1, kind="stable")[:, :k]  # the open ones first, in their order
            is_kept = np.take_along_axis(good, order, axis=1)
            place = waiting[:, None], np.arange(order.shape[1])
            rows[place] = np.where(is_kept, np.take_along_axis(labels, order, axis=1) + self.starts[number], NOTHING)
            distances[place] = np.where(is_kept, np.take_along_axis(apart, order, axis=1), np.inf)
            waiting = waiting[good.sum(axis=1) < min(k, left)]
            fetch *= 4
        return rows, distances

    def _by_graph(self, segment: AnySegment, queries: int, share: float, exact: bool | None) -> bool:
        if not segment.has_graph or exact or share <= EXACT_SELECTIVITY:
            return False
        if exact is False or segment.is_loaded:
            return True
        segment.exact_queries += queries  # what was spent on reading vectors; when it reaches the cost of loading, load
        return segment.exact_queries > self.config.exact_queries

    def _exact(
        self, number: int, queries: NDArray[np.float32], k: int, is_open: Mask | None
    ) -> tuple[Rows, NDArray[np.float32]]:
        segment = self.segments[number]
        if is_open is None or is_open.all():
            rows, distances = exact_knn(queries, segment.vectors, k)
        else:
            chosen = np.flatnonzero(is_open)
            places, distances = exact_knn(queries, segment.vectors, k, reference_rows=chosen)
            rows = chosen[places]
        return np.asarray(rows + self.starts[number], np.int64), distances

    def _ranked(
        self, queries: NDArray[np.float32], rows: Rows, proposed: NDArray[np.float32], k: int
    ) -> tuple[Rows, NDArray[np.float32]]:
        """The k nearest of the candidates (n, c) by distances from the stored vectors, which do not depend on who proposed them."""
        n, width = rows.shape
        if width > k + SLACK:  # of several segments' candidates, those that can be among the k
            best = np.argpartition(proposed, k + SLACK - 1, axis=1)[:, : k + SLACK]
            rows, width = np.take_along_axis(rows, best, axis=1), k + SLACK
        flat = np.maximum(rows.reshape(-1), 0)
        distances = np.empty((n, width), np.float32)
        step = max(1, RANKED_AT_ONCE // max(width, 1))
        for start in range(0, n if width else 0, step):
            part = self.vectors(flat[start * width : (start + step) * width]).reshape(-1, width, self.dim)
            distances[start : start + step] = 1.0 - np.einsum("id,icd->ic", queries[start : start + step], part, dtype=np.float64)
        np.clip(distances, 0.0, 2.0, out=distances)
        distances[rows < 0] = np.inf
        if width < k:
            rows = np.concatenate([rows, np.full((n, k - width), NOTHING, np.int64)], axis=1)
            distances = np.concatenate([distances, np.full((n, k - width), np.inf, np.float32)], axis=1)
        order = np.argsort(distances, axis=1, kind="stable")
        each = np.arange(n)[:, None]
        rows, distances = rows[each, order], distances[each, order]
        same = distances[:, 1:] == distances[:, :-1]
        if same.any():
            for row in np.flatnonzero((same & np.isfinite(distances[:, 1:])).any(axis=1)):
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
