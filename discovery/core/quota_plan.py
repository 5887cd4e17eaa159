"""Which rows, by kind, still have to be taken so that the minima of quotas are met: a small integer program (HiGHS)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST = 2**31  # a bound that binds nothing


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


def plan(
    needs: Needs, available: NDArray[np.int64], places: NDArray[np.int64], is_in: NDArray[np.bool_], weight: NDArray[np.float64],
    sizes: Sequence[Sequence[int]] | None = None, room: float = np.inf,
) -> NDArray[np.int64] | None:  # fmt: skip
    """(c, p) rows of each cell that each part takes, such that all needs are met; None when there is no way.

    available: (c,) rows. places: (p,) most rows of a part. is_in: (c, p) whether a part may take rows of a cell. weight: (p,) what a row costs that a
    part takes; the sum is least. sizes: of each cell the bytes of its smallest rows, ascending, as many as are of use (`Needs.most`); together they
    are at most `room`. With zero weights the bytes are least instead.

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
        if np.isfinite(room):
            constraints.append(LinearConstraint(csr_array(np.concatenate([np.zeros(cells * parts), size])[None]), -np.inf, room))
    cost = np.concatenate([np.tile(weight, cells), np.zeros(steps) if weight.any() else size])
    found = milp(
        cost, integrality=np.concatenate([np.ones(cells * parts), np.zeros(steps)]), constraints=constraints,
        bounds=Bounds(0, np.concatenate([np.where(is_in, most[:, None], 0).ravel(), np.ones(steps)])), options={"mip_rel_gap": 0},
    )  # fmt: skip
    return None if found.x is None else np.rint(found.x[: cells * parts]).astype(np.int64).reshape(cells, parts)


def nearest_miss(needs: Needs, available: NDArray[np.int64]) -> NDArray[np.int64]:
    """(m,) rows by which each minimum is missed when as little as possible is."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array, eye_array, hstack

    m, cells = needs.of.shape
    found = milp(
        np.concatenate([np.zeros(cells), np.ones(m)]), integrality=np.ones(cells + m), bounds=Bounds(0, np.concatenate([available, np.full(m, MOST)])),
        constraints=[
            LinearConstraint(hstack([needs.of, eye_array(m)]), needs.low, np.inf),
            LinearConstraint(hstack([needs.of, csr_array((m, m))]), -np.inf, needs.high),
        ],
    )  # fmt: skip
    assert found.x is not None  # nothing taken is a solution
    return np.asarray(np.rint(found.x[cells:]), np.int64)
