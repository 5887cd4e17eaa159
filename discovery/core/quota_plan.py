"""Which rows, by kind, still have to be taken so that the minima of quotas are met: a small integer program (HiGHS)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST = 2**31  # a bound that binds nothing


def cells_of(codes: Sequence[NDArray[np.int64]], counts: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(c, q) the combinations that q codes of n rows occur in, and (n,) which of them each row has. counts: (q,) values that a code can have.

    >>> cells_of([np.array([1, 0, 1]), np.array([0, 2, 0])], [2, 3])
    (array([[0, 2],
           [1, 0]]), array([1, 0, 1]))
    """
    found, cell_of = np.unique(np.ravel_multi_index(tuple(codes), tuple(counts)), return_inverse=True)
    return np.stack(np.unravel_index(found, tuple(counts)), axis=1), cell_of


@dataclass(frozen=True, slots=True)
class Needs:
    """What is asked of m values of quotas. of: (m, c) sparse, 1 where a cell has the value. low, high: (m,) rows that must and may still be taken."""

    of: Any
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def most(self) -> NDArray[np.int64]:
        """(c,) how many rows of a cell are of use at most."""
        if not len(self.low):
            return np.zeros(self.of.shape[1], np.int64)
        return np.asarray(self.of.multiply(self.low[:, None]).max(axis=0).todense(), np.int64).ravel()


def needs_of(
    cells: NDArray[np.int64], held: Sequence[NDArray[np.int64]], least: Sequence[NDArray[np.int64]], most: Sequence[NDArray[np.int64]]
) -> Needs:
    """What is asked of the values that have a bound, in their order. cells: (c, q). held, least and most: of each value of each of q columns."""
    from scipy.sparse import csr_array, vstack

    of, low, high = [], [], []
    for place, (there, fewest, largest) in enumerate(zip(held, least, most, strict=True)):
        bound = np.flatnonzero(is_bound(fewest, largest))
        of.append(csr_array((np.ones(len(cells)), (cells[:, place], np.arange(len(cells)))), shape=(len(there), len(cells)))[bound])
        low.append(np.maximum(fewest - there, 0)[bound])
        high.append(np.clip(largest - there, 0, MOST)[bound])  # members that were there before may exceed it
    return Needs(vstack(of).tocsr(), np.concatenate(low).astype(float), np.concatenate(high).astype(float))


def is_bound(least: NDArray[np.int64], most: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which values have a bound that can bind."""
    return np.asarray((least > 0) | (most < MOST))


def plan(
    needs: Needs, available: NDArray[np.int64], places: NDArray[np.int64], is_in: NDArray[np.bool_], weight: NDArray[np.float64],
    sizes: Sequence[Sequence[int]] | None = None,
) -> NDArray[np.int64] | None:  # fmt: skip
    """(c, p) rows of each cell that each part takes, such that all needs are met; None when there is no way.

    available: (c,) rows. places: (p,) most rows of a part. is_in: (c, p) whether a part may take rows of a cell. weight: (p,) what a row costs that a
    part takes; the sum is least. sizes: of each cell the bytes of its smallest rows, ascending, as many as are of use (`Needs.most`): then their sum is
    least instead.

    >>> from scipy.sparse import csr_array
    >>> needs = Needs(csr_array(np.eye(2)), np.array([2.0, 0.0]), np.array([5.0, 5.0]))
    >>> plan(needs, np.array([3, 3]), np.array([9]), np.ones((2, 1), bool), np.ones(1)).tolist()
    [[2], [0]]
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array, eye_array, hstack, kron

    cells, parts = is_in.shape
    if not (needs.low > 0).any():
        return np.zeros((cells, parts), np.int64)
    most = np.minimum(available, needs.most)
    lengths = np.array([min(len(one), int(top)) for one, top in zip(sizes, most, strict=True)], np.int64) if sizes is not None else np.zeros(cells, np.int64)
    steps = int(lengths.sum())  # the smallest rows of each cell, one variable each: the bytes of a cell are convex, so the smallest go first
    owner = np.repeat(np.arange(cells), lengths)
    size = np.array([byte for one, length in zip(sizes or [], lengths, strict=False) for byte in one[:length]], float)
    each_cell = kron(eye_array(cells), np.ones((1, parts)))
    filled = csr_array((np.ones(steps), (owner, np.arange(steps))), shape=(cells, steps))
    constraints = [
        LinearConstraint(hstack([kron(needs.of, np.ones((1, parts))), csr_array((len(needs.low), steps))]), needs.low, needs.high),
        LinearConstraint(hstack([each_cell, csr_array((cells, steps))]), -np.inf, most),
        LinearConstraint(hstack([kron(np.ones((1, cells)), eye_array(parts)), csr_array((parts, steps))]), -np.inf, np.minimum(places, MOST)),
    ]
    if sizes is not None:
        constraints.append(LinearConstraint(hstack([each_cell, -filled]), -np.inf, 0))
    cost = np.concatenate([np.tile(weight, cells) if sizes is None else np.zeros(cells * parts), size])
    found = milp(
        cost, integrality=np.concatenate([np.ones(cells * parts), np.zeros(steps)]), constraints=constraints,
        bounds=Bounds(0, np.concatenate([np.where(is_in, most[:, None], 0).ravel(), np.ones(steps)])), options={"mip_rel_gap": 0},
    )  # fmt: skip
    return None if found.x is None else np.rint(found.x[: cells * parts]).astype(np.int64).reshape(cells, parts)


def nearest_miss(needs: Needs, available: NDArray[np.int64], places: NDArray[np.int64], is_in: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(m,) rows by which each minimum is missed when as little as possible is. The rest as in `plan`."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array, eye_array, hstack, kron

    m, (cells, parts) = len(needs.low), is_in.shape
    of = kron(needs.of, np.ones((1, parts)))
    found = milp(
        np.concatenate([np.zeros(cells * parts), np.ones(m)]), integrality=np.ones(cells * parts + m),
        bounds=Bounds(0, np.concatenate([np.where(is_in, available[:, None], 0).ravel(), np.full(m, MOST)])),
        constraints=[
            LinearConstraint(hstack([of, eye_array(m)]), needs.low, np.inf),
            LinearConstraint(hstack([of, csr_array((m, m))]), -np.inf, needs.high),
            LinearConstraint(hstack([kron(eye_array(cells), np.ones((1, parts))), csr_array((cells, m))]), -np.inf, available),
            LinearConstraint(hstack([kron(np.ones((1, cells)), eye_array(parts)), csr_array((parts, m))]), -np.inf, np.minimum(places, MOST)),
        ],
    )  # fmt: skip
    assert found.x is not None  # nothing taken is a solution
    return np.asarray(np.rint(found.x[cells * parts :]), np.int64)
