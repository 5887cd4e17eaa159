"""The one owner of hnswlib: builds, checks, loads and queries one segment; everything hnswlib does not check is checked here.

hnswlib accepts NaN, answers a wrong width with wrong neighbours, saves nothing without an error on a full disk, and loads any
file it is given, with ef back at 10 (ALGORITHMS section 1, each reproduced). Here vectors and queries are validated, a build is
single-threaded with a recorded seed and therefore byte-reproducible, and bytes are compared with the expected size before they
reach `load_index`; their SHA-256 was checked by the store.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from discovery.adapters.files import translated
from discovery.config import IndexConfig
from discovery.errors import CorruptArtifact, InvalidInput, StorageFull

SPACE = "ip"  # on unit vectors: distance = 1 - cosine, without normalising again


def file_size(n: int, dim: int, m: int) -> tuple[int, int]:
    """Smallest and largest bytes an index file of n vectors may have: fixed part per vector, plus upper levels.

    Source: hnswlib 0.8.0 `saveIndex`: 96 bytes header, per vector 4·dim + 8·m + 12, then a 4-byte length each and 4·m + 4 bytes
    a level above the ground.
    """
    fixed = 96 + n * (4 * dim + 8 * m + 12) + 4 * n
    return fixed, fixed + n * (4 * m + 4) * 16


def segment_bytes(n: int, dim: int, m: int) -> int:
    """Bytes that a segment of n vectors is expected to take: its graph, with the levels that are drawn on average, and its vectors."""
    return file_size(n, dim, m)[0] + round(n * (4 * m + 4) / (m - 1)) + 4 * n * dim


class HnswSegment:
    """One immutable graph. Labels are row numbers 0 … n-1 of the vectors it was built from."""

    def __init__(self, index: Any, n: int, dim: int) -> None:
        self._index = index
        self._lock = threading.Lock()  # ef is a property of the shared index, so a query sets and uses it under the lock
        self.elements = n
        self.dim = dim

    @classmethod
    def build(cls, vectors: NDArray[np.float32], config: IndexConfig) -> HnswSegment:
        """Build from (n, d) float32 unit vectors, in an order shuffled by the seed, by one thread.

        The same vectors and settings give the same bytes. Raises InvalidInput for NaN, other dtypes, or rows not of unit norm.
        """
        import hnswlib

        _check_vectors(vectors, None)
        n, dim = vectors.shape
        index = hnswlib.Index(space=SPACE, dim=dim)
        index.init_index(max_elements=n, M=config.m, ef_construction=config.ef_construction, random_seed=config.seed)
        order = np.random.default_rng(config.seed).permutation(n)  # class-sorted insertion costs recall
        index.add_items(vectors[order], ids=order.astype(np.int64), num_threads=1)
        return cls(index, n, dim)

    def to_bytes(self) -> bytes:
        """The graph as hnswlib writes it. Raises StorageFull when the temporary file could not be written whole."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "segment.bin")
            with self._lock:
                self._index.save_index(str(path))
            data = path.read_bytes() if path.is_file() else b""
        low, high = file_size(self.elements, self.dim, self._index.M)
        if not low <= len(data) <= high:
            raise StorageFull(
                f"hnswlib wrote {len(data):,} bytes of at least {low:,} to {tempfile.gettempdir()}: no space left. Free some there and run again."
            )
        return data

    @classmethod
    def from_bytes(cls, data: bytes, n: int, dim: int, m: int) -> HnswSegment:
        """Load bytes whose hash was checked. Raises CorruptArtifact when they cannot hold n vectors of that width.

        m: links a node, from the record of the segment, since the settings may have changed since it was built.
        """
        import hnswlib

        low, high = file_size(n, dim, m)
        if not low <= len(data) <= high:
            raise CorruptArtifact(f"A segment of {n} x {dim} has {low} to {high} bytes, found {len(data)}. Run `discovery verify`.")
        index = hnswlib.Index(space=SPACE, dim=dim)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "segment.bin")
            with translated(f"Writing {path}"):
                path.write_bytes(data)
            try:
                index.load_index(str(path), max_elements=n)
            except RuntimeError as error:
                raise CorruptArtifact(f"hnswlib cannot load a segment: {error}. Run `discovery verify`.") from error
        if index.element_count != n or m != index.M:
            raise CorruptArtifact(f"A segment holds {index.element_count} vectors (M {index.M}), its record says {n} (M {m}).")
        return cls(index, n, dim)

    def query(self, queries: NDArray[np.float32], k: int, ef: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows and cosine distances in [0, 2] of the k nearest, nearest first; k is lowered to the number of vectors.

        queries: (n, d) float32 unit vectors. Returns (n, k) int64 and (n, k) float32. ef is set for this call, since hnswlib
        does not save it. Raises InvalidInput for another width, NaN, or rows not of unit norm.
        """
        _check_vectors(queries, self.dim)
        k = min(k, self.elements)
        with self._lock:
            self._index.set_ef(max(ef, k))
            labels, distances = self._index.knn_query(queries, k=k, num_threads=1)
        return labels.astype(np.int64), np.clip(distances, 0.0, 2.0)


def _check_vectors(vectors: NDArray[np.float32], dim: int | None) -> None:
    if vectors.ndim != 2 or vectors.dtype != np.float32 or len(vectors) == 0:
        raise InvalidInput(f"Expected (n, d) float32 with n > 0, found {vectors.shape} {vectors.dtype}.")
    if dim is not None and vectors.shape[1] != dim:
        raise InvalidInput(f"The index holds vectors of width {dim}, found {vectors.shape[1]}. Use the encoder of the index.")
    norms = np.linalg.norm(vectors, axis=1)
    if not np.isfinite(norms).all() or np.abs(norms - 1.0).max() > 1e-3:
        raise InvalidInput("Expected finite unit vectors; found NaN, infinities or other norms. Normalise them first.")
