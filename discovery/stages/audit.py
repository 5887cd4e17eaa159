"""Audit: the recall of an index against exact search, bounded for rare members as for common ones, and the ef it takes to reach a target.

What was found for a query in a segment stays true as long as neither changes, so it is kept with the snapshot: when a batch comes, only the queries that
it changed, and the segments that it added, are measured again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discovery import schemas
from discovery.adapters.hnsw import NOTHING
from discovery.config import IndexConfig
from discovery.core.draws import draw
from discovery.core.recall import Certificate, Stratum, choose_ef, neighbourhood_sizes, recall_at_k, stratify
from discovery.stages.open_index import OpenIndex, Rows

EF_GRID = (1024, 768, 512, 384, 256, 192, 160, 128, 112, 96, 80, 72, 64, 56, 48, 40, 32, 28, 24, 20, 16)  # steps of a sixth or a third
EXACT = 0  # in the place of an ef: the true neighbours
K = 10
PILOT = 300  # members that tell where the walk down may begin
AHEAD = 3  # places above the ef that is enough for them
FIRST_WALK = 0.8  # of the error allowed, for the walk from there; the rest is for one from the top, should it fail
POOL = 10  # members are drawn for each query that is asked, so that a tenth of them are enough for the rare ones
REFERENCES = 2048  # members that the size of a neighbourhood is estimated from

EXACT_SEARCH = Certificate(EF_GRID[-1], 1.0, 1.0, True, ())  # of an index that nothing can be missed in

Known = dict[tuple[str, str, int], NDArray[np.float32]]  # (segment and its tombstones, query, ef or EXACT): distances of the K nearest


@dataclass(frozen=True, slots=True)
class Audit:
    """What was shown, and the distances that show it, for the next audit."""

    certificate: Certificate
    measured: pa.Table


def audit(index: OpenIndex, config: IndexConfig, known: pa.Table | None = None) -> Audit:
    """Recall@10 of this index against exact search, and the smallest ef at which its bound reaches the target in every stratum.

    Queries are members, each without itself in both answers. A pool of them is drawn by a salted hash and cut by the size of their neighbourhoods into
    the rarest tenth, the next four and the commoner half; of each stratum `audit_queries` are asked. So the bound is not that of an
    average, in which rare members do not show. It speaks of members as queries. In an index so small that all were asked, it is the recall itself; of
    one without a graph nothing is measured, since it is searched by what would be compared with.
    known: what an earlier audit measured.
    """
    live = np.flatnonzero(index.alive)
    if len(live) < 2 or not any(segment.has_graph for segment in index.segments):
        return Audit(EXACT_SEARCH, schemas.AUDIT.empty_table())
    salt = f"recall-audit-{config.seed}"
    ids = index.all_ids()[live]
    pool = live[draw(ids, POOL * config.audit_queries, salt)]
    references = live[draw(ids, REFERENCES, salt + "-references")]
    sizes = neighbourhood_sizes(index.vectors(pool), pool, index.vectors(references), references, len(live))
    strata = stratify(sizes, config.audit_queries, is_whole=len(pool) == len(live))
    asked = np.concatenate([pool[stratum.rows] for stratum in strata])
    places = np.cumsum([0, *(len(stratum.rows) for stratum in strata)])
    strata = [
        Stratum(one.name, one.share, np.arange(low, high), one.is_census, one.smallest, one.largest)
        for one, low, high in zip(strata, places[:-1], places[1:], strict=True)
    ]
    k, before = min(K, len(live) - 1), _known(known)
    work = _Measurement(index, asked, k, before)
    others = np.setdiff1d(live[draw(ids, PILOT, salt + "-pilot")], asked)
    pilot = _Measurement(index, others, k, before)
    start = _start(pilot, config.recall_target) if len(others) else EF_GRID[0]
    found = choose_ef([ef for ef in EF_GRID if ef <= start], work.recalls, strata, config.recall_target, FIRST_WALK * config.recall_delta)
    if not found.certified and start < EF_GRID[0]:  # the pilot was too hopeful: from the top, with what is left of the error allowed
        found = choose_ef(EF_GRID, work.recalls, strata, config.recall_target, (1 - FIRST_WALK) * config.recall_delta)
    return Audit(found, work.table(pilot))


def _start(pilot: _Measurement, target: float) -> int:
    """From which ef to walk down, so that the large ones, which cost most, are not measured: found with members that are not asked otherwise."""
    low, high = 0, len(EF_GRID) - 1  # the smallest ef at which the pilot reaches the target is at a place from low to high
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if pilot.recalls(EF_GRID[middle]).mean() >= target else (low, middle - 1)
    return EF_GRID[max(0, low - AHEAD)]


class _Measurement:
    """Distances of the k nearest of each query, segment by segment, of which those that are known are not measured again."""

    def __init__(self, index: OpenIndex, asked: Rows, k: int, known: Known) -> None:
        self.index = index
        self.asked = asked
        self.k = k
        self.known = known
        self.used: Known = {}
        self.names = [one.decode() for one in index.ids(asked)]
        self.queries = index.vectors(asked)

    def recalls(self, ef: int) -> NDArray[np.float64]:
        """(n,) recall of each query."""
        return recall_at_k(self.distances(ef), self.distances(EXACT))

    def distances(self, ef: int) -> NDArray[np.float32]:
        """(n, k) ascending, over all segments; inf where fewer were found. ef: EXACT for the true ones."""
        best = np.full((len(self.asked), self.k), np.inf, np.float32)
        for number, segment in enumerate(self.index.segments):
            best = np.sort(np.concatenate([best, self._of_segment(number, ef if segment.has_graph else EXACT)], axis=1), axis=1)[:, : self.k]
        return best

    def _of_segment(self, number: int, ef: int) -> NDArray[np.float32]:
        index = self.index
        content = self._content(number)
        keys = [(content, name, ef) for name in self.names]
        missing = np.array([row for row, key in enumerate(keys) if key not in self.used and key not in self.known], np.int64)
        if len(missing):
            segment = index.segments[number]
            dead = segment.ids[~index.alive[index.starts[number] : index.starts[number + 1]]]
            one = OpenIndex([segment], dead, index.dim, ef, index.config)
            own = self.asked[missing] - index.starts[number]
            own = np.where((own >= 0) & (own < one.rows), own, NOTHING)
            _, found = one.search(self.queries[missing], K, without=own[:, None], ef=max(ef, 1), exact=ef == EXACT)
            self.used.update((keys[row], values) for row, values in zip(missing.tolist(), found, strict=True))
        for key in keys:
            if key not in self.used:
                self.used[key] = self.known[key]
        return np.stack([self.used[key] for key in keys])

    def _content(self, number: int) -> str:
        """What a segment answers from: itself and what of it is removed."""
        segment = self.index.segments[number]
        if not self.index.dead[number]:
            return segment.name
        dead = ~self.index.alive[self.index.starts[number] : self.index.starts[number + 1]]
        return f"{segment.name}-{hashlib.sha256(np.packbits(dead).tobytes()).hexdigest()[:16]}"

    def table(self, *others: _Measurement) -> pa.Table:
        """All that was used here and there, for the next audit."""
        used = self.used
        for other in others:
            used = used | other.used
        keys = sorted(used)
        flat = np.concatenate([used[key] for key in keys]) if keys else np.zeros(0, np.float32)
        columns = [[key[part] for key in keys] for part in range(3)]
        found = pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), K)
        return pa.Table.from_arrays([pa.array(columns[0]), pa.array(columns[1]), pa.array(columns[2], pa.int32()), found], schema=schemas.AUDIT)


def _known(table: pa.Table | None) -> Known:
    if table is None or not len(table):
        return {}
    found = table["distances"].combine_chunks()
    values = np.asarray(found.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(-1, K)
    return dict(zip(zip(table["content"].to_pylist(), table["asset_id"].to_pylist(), table["ef"].to_pylist(), strict=True), values, strict=True))
