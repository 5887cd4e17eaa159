"""The file of one HNSW graph, as hnswlib 0.8.0 writes it: its size, the check that it is one, and its nodes in another order.

hnswlib trusts every number in the file that it loads, so `check_graph_file` reads all of them before. `reorder_graph_file` gives nodes that are linked
places that are near: a search then touches memory that is in a cache already.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from discovery.errors import CorruptArtifact

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
    levels, _ = _upper_levels(data[HEADER.itemsize + n * stride :], n, m, refuse)
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


def _upper_levels(data: NDArray[np.uint8], n: int, m: int, refuse: Any) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """(n,) the highest level of each node, and (l, 1 + m) its checked lists of links above the ground, node after node, a count and the links each."""
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
    every = np.concatenate(links) if links else np.zeros((0, one), np.uint32)
    _check_links(every, n, m, refuse)
    raised = np.flatnonzero(levels)
    owners = np.repeat(raised, levels[raised])
    height = np.concatenate([np.arange(1, levels[node] + 1) for node in raised]) if len(raised) else np.zeros(0, np.int64)
    used = np.arange(m)[None, :] < every[:, :1]
    if (levels[np.where(used, every[:, 1:], owners[:, None])] < height[:, None]).any():
        raise refuse("a link leads to a node that is not on its level")
    return levels, every


def reorder_graph_file(path: Path, target: Path, n: int, dim: int, m: int) -> None:
    """Write the graph of a checked file anew, so that nodes which are linked have places which are near; labels, links and levels are the same.

    The order is that of reverse Cuthill-McKee over the links of the ground (scipy), which does not depend on the machine. A search reads some thousand
    nodes that are linked to one another: with this order and `core.locality` more of them are in a cache, or on pages that are known. Source:
    Coleman et al. 2022, "Graph reordering for cache-efficient near neighbor search"; figures in benchmarks/results/index_recall.txt. Memory: about
    50 m bytes a node.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    def refuse(what: str) -> CorruptArtifact:
        return CorruptArtifact(f"{path.name}: {what}.")

    stride, row = 4 * dim + 8 * m + 12, 8 * m + 4
    data = np.memmap(path, np.uint8, "r")
    header = np.array(data[: HEADER.itemsize].view(HEADER))
    ground = data[HEADER.itemsize : HEADER.itemsize + n * stride].reshape(n, stride)
    links = np.empty((n, 1 + 2 * m), np.uint32)
    for start in range(0, n, CHECK_ROWS):
        links[start : start + CHECK_ROWS] = np.ascontiguousarray(ground[start : start + CHECK_ROWS, :row]).view("<u4")
    levels, upper = _upper_levels(data[HEADER.itemsize + n * stride :], n, m, refuse)
    used = np.arange(2 * m)[None, :] < links[:, :1]
    starts = np.concatenate([[0], np.cumsum(links[:, 0], dtype=np.int64)])
    between = csr_matrix((np.ones(int(starts[-1]), np.int8), links[:, 1:][used].astype(np.int32), starts), shape=(n, n))
    order = np.asarray(reverse_cuthill_mckee(between), np.int64)  # the node that comes to each place
    del between
    place = np.empty(n, np.uint32)
    place[order] = np.arange(n, dtype=np.uint32)
    header["enterpoint"] = place[header["enterpoint"]]
    links[:, 1:][used] = place[links[:, 1:][used]]
    used = np.arange(m)[None, :] < upper[:, :1]
    upper[:, 1:][used] = place[upper[:, 1:][used]]
    first = np.concatenate([[0], np.cumsum(levels)])  # of each node's lists above the ground
    with target.open("wb") as sink:
        sink.write(header.tobytes())
        for start in range(0, n, CHECK_ROWS):
            rows = order[start : start + CHECK_ROWS]
            block = ground[rows]
            block[:, :row] = links[rows].view(np.uint8).reshape(len(rows), row)
            sink.write(block.tobytes())
        for start in range(0, n, CHECK_ROWS):
            parts = []
            for node in order[start : start + CHECK_ROWS].tolist():
                parts.append(int(levels[node] * (4 * m + 4)).to_bytes(4, "little"))
                if levels[node]:
                    parts.append(upper[first[node] : first[node + 1]].tobytes())
            sink.write(b"".join(parts))
