"""Segments: ids and vectors of some assets in one mapped file, with a graph when they are many; built anywhere, opened once a process."""

from __future__ import annotations

import functools
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from discovery.adapters.cores import share_of_cores
from discovery.adapters.dask_map import INLINE
from discovery.adapters.graph_file import check_graph_file, reorder_graph_file
from discovery.adapters.hnsw import SPACE, HnswSegment
from discovery.adapters.storage import Store
from discovery.adapters.vector_file import open_vectors, write_vectors
from discovery.addressing import stage_key
from discovery.config import Config, IndexConfig
from discovery.core.tiers import graph_sizes
from discovery.errors import CorruptArtifact, EncoderMismatch, InvalidInput
from discovery.stages.shards import worker_store
from discovery.types import FileRef, Segment, SegmentRef
from discovery.workspace import Workspace

VECTORS, GRAPH = "vectors", "segment"
Ids = NDArray[np.bytes_]  # (n,) S64, ascending
Fetch = Callable[[Ids], NDArray[np.float32]]


class OpenSegment:
    """A segment that is mapped into memory; its graph is loaded when it is first asked for. Rows are in the order of ids."""

    def __init__(self, record: Segment, store: Store, config: IndexConfig) -> None:
        self.record = record
        self.name = record.id
        path = store.local_file(record, VECTORS, limit=config.cache_bytes)
        self.ids, self.vectors = open_vectors(path, record.elements, record.dim)
        self._load = functools.partial(_load_graph, record, store, config)
        self._graph: HnswSegment | None = None
        self._lock = threading.Lock()
        self.exact_queries = 0  # answered without the graph

    @property
    def has_graph(self) -> bool:
        """Whether there is a graph; else it is searched exactly."""
        return self.record.m > 0

    @property
    def is_loaded(self) -> bool:
        """Whether the graph is in memory."""
        return self._graph is not None

    @property
    def graph(self) -> HnswSegment:
        """The graph, loaded by the first who asks. Raises CorruptArtifact; InvalidInput when there is none."""
        if not self.has_graph:
            raise InvalidInput(f"Segment {self.record.id[:12]}… has no graph: it is searched exactly.")
        with self._lock:
            if self._graph is None:
                self._graph = self._load()
            return self._graph


def _load_graph(record: Segment, store: Store, config: IndexConfig) -> HnswSegment:
    shape = (record.elements, record.dim, record.m)
    check = functools.partial(check_graph_file, n=shape[0], dim=shape[1], m=shape[2])
    return HnswSegment.load(store.local_file(record, GRAPH, check, config.cache_bytes), *shape, is_checked=True)


_opening = threading.Lock()


def open_segment(ref: SegmentRef, encoder_id: str, ws: Workspace) -> OpenSegment:
    """Map one segment; CorruptArtifact when its bytes changed or do not fit its record, EncoderMismatch when it is of another space."""
    with _opening:
        opened: WeakValueDictionary[str, OpenSegment] = ws.cache.setdefault("segments", WeakValueDictionary())  # those some open index uses
        found = opened.get(ref.id)
        if found is None:
            record = ws.store.load_record(Segment, ref.id)
            if record is None:
                raise CorruptArtifact(f"Index segment {ref.id} is missing. Run `discovery verify`, then `discovery index`.")
            found = opened[ref.id] = OpenSegment(record, ws.store, ws.config.index)
    record = found.record
    if record.encoder_id != encoder_id or record.space != SPACE:
        raise EncoderMismatch(f"Segment {ref.id[:12]}… holds {record.encoder_id} vectors in {record.space}, not {encoder_id}.")
    return found


@dataclass(frozen=True, slots=True)
class BuildTask:
    """A graph to be built: all that a worker needs, small enough to be sent. The vectors are in the store already."""

    config: Config
    key: str
    vectors: FileRef
    encoder_id: str
    dim: int
    elements: int
    created_at: str


def build_graph(task: BuildTask) -> Segment:
    """Build the graph of a task and commit its segment; runs on a worker. The same task gives the same bytes."""
    return _build(task, worker_store(task.config.root, task.config.s3))


def _build(task: BuildTask, store: Store) -> Segment:
    config = task.config.index
    files = (task.vectors,)
    record = Segment(
        id=task.key, inputs=(), created_at=task.created_at, files=files, encoder_id=task.encoder_id, dim=task.dim, space=SPACE, m=config.m,
        elements=task.elements,
    )  # fmt: skip
    path = store.local_file(record, VECTORS, limit=config.cache_bytes)
    _, vectors = open_vectors(path, task.elements, task.dim)
    graph = HnswSegment.build(vectors, config)
    with tempfile.TemporaryDirectory() as folder:
        built, ordered = Path(folder, "built.bin"), Path(folder, "graph.bin")
        graph.save(built)
        del graph
        reorder_graph_file(built, ordered, task.elements, task.dim, config.m)
        built.unlink()
        ref = store.put_file(Segment.stage, task.key, GRAPH, ordered, ".bin", task.elements)
    return store.commit(Segment.from_dict({**record.to_dict(), "files": [*record.to_dict()["files"], _as_dict(ref)]}))


def _as_dict(ref: FileRef) -> dict[str, object]:
    return {name: getattr(ref, name) for name in ("role", "name", "sha256", "size_bytes", "rows")}


def make_segments(ids: Ids, vectors_of: Fetch, encoder_id: str, dim: int, ws: Workspace, *, graphs: bool) -> list[SegmentRef]:
    """Committed segments of these ids (ascending), which become several graphs when they are many; the same input finds the same segments.

    vectors_of: gives the (n, d) float32 unit vectors of some of the ids, in their order; asked for one segment at a time. graphs: whether they get
    graphs, which are built at once: on the Dask cluster that is configured, else by threads of this process. A graph is built by one thread.
    """
    config = ws.config.index
    sizes = graph_sizes(len(ids), config.segment_rows) if graphs else [len(ids)] * bool(len(ids))
    refs: list[SegmentRef] = []
    tasks: list[BuildTask] = []
    start = 0
    for size in sizes:
        part = ids[start : start + size]
        start += size
        if not size:
            continue
        settings = {"m": config.m, "ef_construction": config.ef_construction, "seed": config.seed} if graphs else {"m": 0}
        key = stage_key(Segment.stage, Segment.version, {**settings, "encoder_id": encoder_id}, [part.tobytes().decode()])
        refs.append(SegmentRef(key, size))
        if ws.find(Segment, key) is not None:
            continue
        vectors = vectors_of(part)
        if vectors.shape != (size, dim):
            raise InvalidInput(f"Expected vectors of shape {(size, dim)}, found {vectors.shape}.")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "vectors.arrow")
            write_vectors(path, part, vectors)
            ref = ws.put_file(Segment, key, VECTORS, path, ".arrow", size)
        ws.tally["index.inserted"] += size
        if graphs:
            tasks.append(BuildTask(ws.config, key, ref, encoder_id, dim, size, ws.clock()))
        else:
            ws.commit(
                Segment(
                    id=key, inputs=(), created_at=ws.clock(), files=(ref,), encoder_id=encoder_id, dim=dim, space=SPACE, m=0, elements=size
                )
            )  # fmt: skip
    for segment in _spread(tasks, ws):
        ws.catalog.add_record(segment)
        ws.report(f"index: built a graph of {segment.elements:,} vectors")
    return refs


def _spread(tasks: Sequence[BuildTask], ws: Workspace) -> Sequence[Segment]:
    """Builds at once: hnswlib lets go of Python's lock, so that threads do here what would take processes their start."""
    if tasks:
        ws.report(f"index: building {len(tasks)} graph{'s' * (len(tasks) > 1)} of {sum(task.elements for task in tasks):,} vectors")
    if ws.config.dask.scheduler not in ("", INLINE):
        return list(ws.map_shards(build_graph, tasks))
    with ThreadPoolExecutor(max(1, min(len(tasks), share_of_cores()))) as pool:
        return list(pool.map(lambda task: _build(task, ws.store), tasks))
