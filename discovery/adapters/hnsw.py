"""The one owner of hnswlib: builds, checks, loads and queries one graph; everything hnswlib does not check is checked here.

hnswlib accepts NaN, answers a wrong width with wrong neighbours, saves nothing without an error on a full disk, and loads any
file it is given, with ef back at 10 (ALGORITHMS section 1, each reproduced). Here vectors and queries are validated; a build is
single-threaded with a recorded seed and therefore byte-reproducible; a graph is never changed after it was built; and a file is read through
(`graph_file.check_graph_file`) before it reaches `load_index`, which trusts every number in it.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from discovery.adapters.graph_file import check_graph_file, file_size
from discovery.adapters.insertion import insertion_order
from discovery.config import IndexConfig
from discovery.errors import CorruptArtifact, InvalidInput, StorageFull

SPACE = "ip"  # on unit vectors: distance = 1 - cosine, without normalising again
NOTHING = -1  # the label where a graph has no further neighbour to give
BLOCK = 65536  # vectors that are copied or checked at a time


class HnswSegment:
    """One immutable graph. Labels are row numbers 0 … n-1 of the vectors it was built from. Threads may query it at once."""

    def __init__(self, index: Any, n: int, dim: int) -> None:
        self._index = index
        self._turn = threading.Condition()
        self._ef = 0
        self._running = 0
        self.elements = n
        self.dim = dim

    @classmethod
    def build(cls, vectors: NDArray[np.float32], config: IndexConfig) -> HnswSegment:
        """Build from (n, d) float32 unit vectors, in an order by chance in which lonely ones get the upper levels (`insertion`), by one thread.

        The same vectors and settings give the same bytes. Raises InvalidInput for NaN, other dtypes, or rows not of unit norm.
        """
        import hnswlib

        check_vectors(vectors, None)
        n, dim = vectors.shape
        index = hnswlib.Index(space=SPACE, dim=dim)
        index.init_index(max_elements=n, M=config.m, ef_construction=config.ef_construction, random_seed=config.seed)
        order = insertion_order(vectors, config.m, config.seed)
        for start in range(0, n, BLOCK):  # not all vectors twice in memory
            rows = order[start : start + BLOCK]
            index.add_items(np.ascontiguousarray(vectors[rows]), ids=rows.astype(np.int64), num_threads=1)
        return cls(index, n, dim)

    def save(self, path: Path) -> None:
        """Write the graph as hnswlib does. Raises StorageFull when the file could not be written whole."""
        self._index.save_index(str(path))
        low, high = file_size(self.elements, self.dim, self._index.M)
        size = path.stat().st_size if path.is_file() else 0
        if not low <= size <= high:
            raise StorageFull(f"hnswlib wrote {size:,} bytes of at least {low:,} to {path.parent}: no space left. Free some there and run again.")

    def to_bytes(self) -> bytes:
        """What `save` writes."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "graph.bin")
            self.save(path)
            return path.read_bytes()

    @classmethod
    def load(cls, path: Path, n: int, dim: int, m: int, *, is_checked: bool = False) -> HnswSegment:
        """Load a file. Raises CorruptArtifact when it is not a graph of n vectors of that width.

        m: links a node, from the record of the segment, since the settings may have changed since it was built. is_checked: the file
        was given to `check_graph_file` and has not changed since.
        """
        import hnswlib

        if not is_checked:
            check_graph_file(path, n, dim, m)
        index = hnswlib.Index(space=SPACE, dim=dim)
        try:
            index.load_index(str(path), max_elements=n)
        except RuntimeError as error:
            raise CorruptArtifact(f"hnswlib cannot load {path.name}: {error}. Run `discovery verify`.") from error
        return cls(index, n, dim)

    def query(
        self, queries: NDArray[np.float32], k: int, ef: int, threads: int = 1, *, is_checked: bool = False
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows and cosine distances in [0, 2] of the k nearest, nearest first; k is lowered to the number of vectors.

        queries: (n, d) float32 unit vectors. Returns (n, k) int64 and (n, k) float32. ef is set for this call, since hnswlib
        does not save it. is_checked: the queries were given to `check_vectors`. A query whose walk comes to fewer than k vectors (hnswlib would refuse the whole batch) has a row of NOTHING and inf. Raises
        InvalidInput for another width, NaN, or rows not of unit norm.
        """
        if not is_checked:
            check_vectors(queries, self.dim)
        k = min(k, self.elements)
        if k < 1:
            raise InvalidInput(f"Expected k >= 1, found {k}.")
        with self._with_ef(max(ef, k)):
            try:
                labels, distances = self._index.knn_query(queries, k=k, num_threads=threads)
                return labels.view(np.int64), np.clip(distances, 0.0, 2.0, out=distances)
            except RuntimeError:
                rows = np.full((len(queries), k), NOTHING, np.int64)
                found = np.full((len(queries), k), np.inf, np.float32)
                for number in range(len(queries)):
                    try:
                        labels, distances = self._index.knn_query(queries[number : number + 1], k=k, num_threads=1)
                    except RuntimeError:
                        continue
                    rows[number], found[number] = labels[0], np.clip(distances[0], 0.0, 2.0)
                return rows, found

    @contextmanager
    def _with_ef(self, ef: int) -> Iterator[None]:
        """ef is a property of the index that all its queries share: those of one ef run together, those of another wait for them."""
        with self._turn:
            self._turn.wait_for(lambda: self._running == 0 or self._ef == ef)
            if self._ef != ef:
                self._index.set_ef(ef)
                self._ef = ef
            self._running += 1
        try:
            yield
        finally:
            with self._turn:
                self._running -= 1
                if self._running == 0:
                    self._turn.notify_all()


def check_vectors(vectors: NDArray[np.float32], dim: int | None) -> None:
    """Raise InvalidInput unless these are (n, d) float32 unit vectors with n > 0, of width `dim` when that is given."""
    if vectors.ndim != 2 or vectors.dtype != np.float32 or len(vectors) == 0:
        raise InvalidInput(f"Expected (n, d) float32 with n > 0, found {vectors.shape} {vectors.dtype}.")
    if dim is not None and vectors.shape[1] != dim:
        raise InvalidInput(f"The index holds vectors of width {dim}, found {vectors.shape[1]}. Use the encoder of the index.")
    for start in range(0, len(vectors), BLOCK):
        part = vectors[start : start + BLOCK]
        norms = np.einsum("ij,ij->i", part, part)
        if not np.isfinite(norms).all() or np.abs(norms - 1.0).max() > 2e-3:
            raise InvalidInput("Expected finite unit vectors; found NaN, infinities or other norms. Normalise them first.")
