"""The one owner of hnswlib: builds, checks, loads and queries one graph; everything hnswlib does not check is checked here.

hnswlib accepts NaN, answers a wrong width with wrong neighbours, saves nothing without an error on a full disk, and loads any
file it is given, with ef back at 10 (ALGORITHMS section 1, each reproduced). Here vectors and queries are validated; a build is
single-threaded with a recorded seed and therefore byte-reproducible; a graph is never changed after it was built; and a file is read through
(`check_graph_file`) before it reaches `load_index`, which trusts every number in it.
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

from discovery.config import IndexConfig
from discovery.errors import CorruptArtifact, InvalidInput, StorageFull

SPACE = "ip"  # on unit vectors: distance = 1 - cosine, without normalising again
NOTHING = -1  # the label where a graph has no further neighbour to give
HEADER = np.dtype(
    [
        ("offset_level0", "<u8"), ("max_elements", "<u8"), ("elements", "<u8"), ("size_per_element", "<u8"), ("label_offset", "<u8"),
        ("data_offset", "<u8"), ("max_level", "<i4"), ("enterpoint", "<u4"), ("max_m", "<u8"), ("max_m0", "<u8"), ("m", "<u8"), ("mult", "<f8"),
        ("ef_construction", "<u8"),
    ]
)  # fmt: skip  # hnswlib 0.8.0, HierarchicalNSW::saveIndex
CHECK_ROWS = 65536  # checked at a time


def file_size(n: int, dim: int, m: int) -> tuple[int, int]:
    """Smallest and largest bytes an index file of n vectors may have: fixed part per vector, plus upper levels.

    Source: hnswlib 0.8.0 `saveIndex`: 96 bytes header, per vector 4·dim + 8·m + 12, then a 4-byte length each and 4·m + 4 bytes
    a level above the ground.
    """
    fixed = 96 + n * (4 * dim + 8 * m + 12) + 4 * n
    return fixed, fixed + n * (4 * m + 4) * 16


def segment_bytes(n: int, dim: int, m: int) -> int:
    """Bytes that a segment of n vectors is expected to take: its graph, with the levels that are drawn on average, its vectors and ids."""
    return file_size(n, dim, m)[0] + round(n * (4 * m + 4) / (m - 1)) + n * (4 * dim + 64)


def check_graph_file(path: Path, n: int, dim: int, m: int) -> None:
    """Read a whole index file and refuse it unless every count, length, neighbour and label in it is one that a graph can have.

    `load_index` would follow a neighbour id that is out of range at query time, and a length that is too large past the end of its memory. Raises
    CorruptArtifact.
    """

    def refuse(what: str) -> CorruptArtifact:
        return CorruptArtifact(f"{path.name} is no graph of {n:,} x {dim} with m = {m}: {what}. Run `discovery verify`.")

    low, high = file_size(n, dim, m)
    size = path.stat().st_size
    if not low <= size <= high:
        raise refuse(f"it has {size:,} bytes, not {low:,} to {high:,}")
    stride = 4 * dim + 8 * m + 12
    data = np.memmap(path, np.uint8, "r")
    header = data[: HEADER.itemsize].view(HEADER)[0]
    expected = {
        "offset_level0": 0, "elements": n, "size_per_element": stride, "label_offset": stride - 8, "data_offset": 8 * m + 4, "max_m": m, "max_m0": 2 * m,
        "m": m,
    }  # fmt: skip
    for name, value in expected.items():
        if int(header[name]) != value:
            raise refuse(f"{name} is {int(header[name])}, not {value}")
    top = int(header["max_level"])
    if not n <= int(header["max_elements"]) < 2**40 or int(header["enterpoint"]) >= n or not 0 <= top < 64:
        raise refuse("its header points outside of it")
    ground = data[HEADER.itemsize : HEADER.itemsize + n * stride].reshape(n, stride)
    seen = np.zeros(n, np.bool_)
    for start in range(0, n, CHECK_ROWS):
        part = ground[start : start + CHECK_ROWS]
        links = np.ascontiguousarray(part[:, : 8 * m + 4]).view("<u4")
        _check_links(links, n, 2 * m, refuse)
        labels = np.ascontiguousarray(part[:, stride - 8 :]).view("<u8").ravel()
        if (labels >= n).any():
            raise refuse("a label is out of range")
        seen[labels] = True
    if not seen.all():
        raise refuse("two vectors have one label")
    levels = _upper_levels(data[HEADER.itemsize + n * stride :], n, m, refuse)
    if int(levels.max(initial=0)) > top or levels[int(header["enterpoint"])] < top:
        raise refuse("its levels are not those of its header")


def _check_links(links: NDArray[np.uint32], n: int, most: int, refuse: Any) -> None:
    """Rows of a count and `most` places; the upper half of the count holds flags, of which one would mean deleted."""
    counts = links[:, 0]
    if (counts > most).any():
        raise refuse("a node has more links than there is room for, or is marked as deleted")
    used = np.arange(most)[None, :] < counts[:, None]
    if (links[:, 1:][used] >= n).any():
        raise refuse("a link leads out of it")


def _upper_levels(data: NDArray[np.uint8], n: int, m: int, refuse: Any) -> NDArray[np.int64]:
    """(n,) the highest level of each node, whose lists of links above the ground are checked on the way."""
    if len(data) % 4:
        raise refuse("it ends within a number")
    words = np.ascontiguousarray(data).view("<u4")
    filled = np.flatnonzero(words)
    levels = np.zeros(n, np.int64)
    place, node, one = 0, 0, m + 1  # words of one level: a count and m links
    links = []
    while True:
        following = int(np.searchsorted(filled, place))
        gap = (int(filled[following]) if following < len(filled) else len(words)) - place  # nodes that are on the ground only
        if node + gap >= n:
            if place + n - node != len(words):
                raise refuse("there is something after its last node")
            break
        place, node = place + gap, node + gap
        length = int(words[place])
        if length % (4 * one) or place + 1 + length // 4 > len(words):
            raise refuse("a node's upper levels have an impossible length")
        levels[node] = length // (4 * one)
        links.append(words[place + 1 : place + 1 + length // 4].reshape(-1, one))
        place, node = place + 1 + length // 4, node + 1
    if links:
        owners = np.repeat(np.flatnonzero(levels), levels[levels > 0])
        every = np.concatenate(links)
        _check_links(every, n, m, refuse)
        height = np.concatenate([np.arange(1, level + 1) for level in levels[levels > 0]])
        used = np.arange(m)[None, :] < every[:, :1]
        if (levels[np.where(used, every[:, 1:], owners[:, None])] < height[:, None]).any():
            raise refuse("a link leads to a node that is not on its level")
    return levels


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
        """Build from (n, d) float32 unit vectors, in an order shuffled by the seed, by one thread.

        The same vectors and settings give the same bytes. Raises InvalidInput for NaN, other dtypes, or rows not of unit norm.
        """
        import hnswlib

        check_vectors(vectors, None)
        n, dim = vectors.shape
        index = hnswlib.Index(space=SPACE, dim=dim)
        index.init_index(max_elements=n, M=config.m, ef_construction=config.ef_construction, random_seed=config.seed)
        order = np.random.default_rng(config.seed).permutation(n)  # class-sorted insertion costs recall
        for start in range(0, n, CHECK_ROWS):  # not all vectors twice in memory
            rows = order[start : start + CHECK_ROWS]
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
    for start in range(0, len(vectors), CHECK_ROWS):
        part = vectors[start : start + CHECK_ROWS]
        norms = np.einsum("ij,ij->i", part, part)
        if not np.isfinite(norms).all() or np.abs(norms - 1.0).max() > 2e-3:
            raise InvalidInput("Expected finite unit vectors; found NaN, infinities or other norms. Normalise them first.")
