"""Groups of vectors that are alike, with the one in the middle of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from discovery.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Grouping:
    """group: (n,) of each row, 0 the largest, ties by id. exemplars: (groups,) the row nearest to all others of its group, ties by id."""

    group: NDArray[np.int64]
    exemplars: NDArray[np.int64]


def group_alike(vectors: NDArray[np.float32], ids: NDArray[np.bytes_], within: float) -> Grouping:
    """Rows joined while the mean cosine distance between two groups is at most `within` (average linkage), whatever their order.

    vectors: (n, d) unit rows, ids: (n,) S64. Memory: n² distances, so a few thousand rows. Raises InvalidInput when both differ in length.

    >>> ids = np.array([b"a" * 64, b"b" * 64, b"c" * 64])
    >>> group_alike(np.array([[1, 0], [0, 1], [0.8, 0.6]], np.float32), ids, 0.3).group.tolist()
    [0, 1, 0]
    """
    if len(vectors) != len(ids):
        raise InvalidInput(f"Expected an id for each vector, found {len(vectors)} vectors and {len(ids)} ids.")
    order = np.argsort(ids, kind="stable")
    if len(order) < 2:
        return Grouping(np.zeros(len(order), np.int64), order)
    from scipy.cluster.hierarchy import average, fcluster

    rows = vectors[order].astype(np.float64)
    apart = np.clip(1.0 - rows @ rows.T, 0.0, 2.0)
    label = fcluster(average(apart[np.triu_indices(len(rows), 1)]), within, "distance")
    members = [np.flatnonzero(label == one) for one in np.unique(label)]
    members.sort(key=lambda one: (-len(one), int(one[0])))
    group, exemplars = np.empty(len(rows), np.int64), np.empty(len(members), np.int64)
    for number, mine in enumerate(members):
        group[order[mine]] = number
        exemplars[number] = order[mine[int(np.argmin(np.round(apart[np.ix_(mine, mine)].sum(axis=1), 9)))]]
    return Grouping(group, exemplars)
