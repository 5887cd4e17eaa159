"""What a selection may still take: a budget in assets and bytes, and fewest and most members for the values of some columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from discovery.errors import InvalidInput

NO_LIMIT = np.iinfo(np.int64).max // 4
SHOWN = 5  # values that are named in a refusal


@dataclass(frozen=True, slots=True)
class Quota:
    """Fewest and most members for the values of one column: values (n,), one a candidate; a value that is named in neither is unbounded."""

    by: str
    values: NDArray[np.object_]
    minimum: Mapping[str, int] = field(default_factory=dict)
    maximum: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Limits:
    """How many more members there may be, and of how many bytes together."""

    assets: int
    bytes: int = NO_LIMIT


class Allowance:
    """What may be taken next. A row that may not be taken now may not be taken later either, so that a greedy algorithm drops it.

    Minima of several columns are met together by a plan: how many of each combination of values are still to be taken. A row may be taken
    when a plan is left that fits the budget and the maxima. With one column that is the reservation of what is owed; with more it is a small
    integer program (HiGHS), solved anew only when the last plan does not show that the row may be taken.
    """

    def __init__(self, n: int, preselected: NDArray[np.bool_], limits: Limits, quotas: Sequence[Quota], size_bytes: NDArray[np.int64] | None) -> None:
        """Raises InvalidInput, with what could be met, when the minima cannot be met together."""
        self.left = limits.assets
        self.bytes_left = limits.bytes
        self.size_bytes = size_bytes if size_bytes is not None else np.zeros(n, np.int64)
        self.taken = preselected.copy()
        self.quotas = tuple(quotas)
        self.names: list[NDArray[np.object_]] = []
        self.codes: list[NDArray[np.int64]] = []
        self.least: list[NDArray[np.int64]] = []
        self.most: list[NDArray[np.int64]] = []
        self.counts: list[NDArray[np.int64]] = []
        for quota in quotas:
            absent = [name for name, least in quota.minimum.items() if least > 0 and not (quota.values == name).any()]
            if absent:
                raise InvalidInput(f"Quota by {quota.by}: no candidate is {', '.join(map(repr, absent[:SHOWN]))}, of which there should be some.")
            names, codes = np.unique(quota.values.astype(str), return_inverse=True)
            self.names.append(names.astype(object))
            self.codes.append(codes.astype(np.int64))
            self.least.append(np.array([quota.minimum.get(name, 0) for name in names], np.int64))
            self.most.append(np.array([quota.maximum.get(name, NO_LIMIT) for name in names], np.int64))
            self.counts.append(np.bincount(codes[preselected], minlength=len(names)))
        self._plan: NDArray[np.int64] | None = None
        if quotas and any(least.any() for least in self.least):
            combined = np.stack(self.codes, axis=1) if n else np.zeros((0, len(quotas)), np.int64)
            self.cells, self.cell_of = np.unique(combined, axis=0, return_inverse=True)
            self.available = np.bincount(self.cell_of[~preselected], minlength=len(self.cells))
            self.is_closed = np.zeros(len(self.cells), bool)
            self._plan = self._solve()
            if self._plan is None or self._plan.sum() > self.left:
                raise InvalidInput(self._explain())

    def has_room(self, row: int) -> bool:
        """Whether the row may be taken now."""
        if self.taken[row] or self.left < 1 or self.size_bytes[row] > self.bytes_left:
            return False
        if any(counts[codes[row]] >= most[codes[row]] for counts, codes, most in zip(self.counts, self.codes, self.most, strict=True)):
            return False
        if self._plan is None or not self._plan.any():
            return True
        cell = int(self.cell_of[row])
        if self.is_closed[cell]:
            return False
        if self._plan[cell] > 0 or (self._plan.sum() < self.left and self._fits_beside(cell)):
            return True
        plan = self._solve(cell)
        if plan is None or plan.sum() >= self.left:
            self.is_closed[cell] = True  # for good: whatever is taken in between would be part of a plan now
            return False
        self._plan = plan  # after the row itself; with it the plan holds now as well
        self._plan[cell] += 1
        return True

    def mask(self) -> NDArray[np.bool_]:
        """(n,) which rows may be taken now."""
        if self.left < 1:
            return np.zeros(len(self.taken), bool)
        allowed = ~self.taken & (self.size_bytes <= self.bytes_left)
        for counts, codes, most in zip(self.counts, self.codes, self.most, strict=True):
            allowed &= (counts < most)[codes]
        if self._plan is not None and self._plan.any():
            rows = np.flatnonzero(allowed)
            first = rows[np.unique(self.cell_of[rows], return_index=True)[1]]
            is_open = np.zeros(len(self.cells), bool)
            for row in first.tolist():
                is_open[self.cell_of[row]] = self.has_room(row)
            allowed &= is_open[self.cell_of]
        return allowed

    def take(self, row: int) -> None:
        """Count the row, for which there is room, as a member."""
        self.taken[row] = True
        self.left -= 1
        self.bytes_left -= int(self.size_bytes[row])
        for counts, codes in zip(self.counts, self.codes, strict=True):
            counts[codes[row]] += 1
        if self._plan is not None:
            cell = int(self.cell_of[row])
            self.available[cell] -= 1
            if self._plan[cell] > 0:
                self._plan[cell] -= 1
            else:
                self._drop_met(cell)

    @property
    def is_met(self) -> bool:
        """Whether every minimum is reached."""
        return all((counts >= least).all() for counts, least in zip(self.counts, self.least, strict=True))

    def unmet(self) -> str:
        """The minima that are not reached, in words."""
        return _listed(
            [
                f"{quota.by} {name}: {counts[code]} of {least[code]}"
                for quota, names, counts, least in zip(self.quotas, self.names, self.counts, self.least, strict=True)
                for code, name in enumerate(names)
                if counts[code] < least[code]
            ]
        )

    def _fits_beside(self, cell: int) -> bool:
        """Whether the plan stays within the maxima when one more of a cell is taken."""
        assert self._plan is not None
        for place, (counts, most) in enumerate(zip(self.counts, self.most, strict=True)):
            value = self.cells[cell, place]
            planned = int(self._plan[self.cells[:, place] == value].sum())
            if counts[value] + planned + 1 > most[value]:
                return False
        return True

    def _drop_met(self, cell: int) -> None:
        """Let a plan be smaller where a row that it did not name reached a minimum; only what saves a solution later."""
        assert self._plan is not None
        for other in np.flatnonzero((self._plan > 0) & (self.cells == self.cells[cell]).any(axis=1)):
            if all(
                self.counts[place][self.cells[other, place]] + int(self._plan[self.cells[:, place] == self.cells[other, place]].sum())
                > self.least[place][self.cells[other, place]]
                for place in range(len(self.quotas))
            ):
                self._plan[other] -= 1

    def _solve(self, taken: int | None = None) -> NDArray[np.int64] | None:
        """The fewest of each cell that meet all minima within the maxima, after one of cell `taken`; None when there is no way."""
        if len(self.quotas) == 1:
            return self._owed(taken)
        from scipy.optimize import Bounds, LinearConstraint, milp

        rows, low, high, extra = self._constraints(taken)
        if not (low > 0).any():
            return np.zeros(len(self.cells), np.int64)
        found = milp(
            np.ones(len(self.cells)), integrality=np.ones(len(self.cells)), bounds=Bounds(0, np.maximum(self.available - extra, 0)),
            constraints=LinearConstraint(rows, low, high),
        )  # fmt: skip
        return None if found.x is None else np.rint(found.x).astype(np.int64)

    def _owed(self, taken: int | None) -> NDArray[np.int64] | None:
        """The plan of one column: what each value is still owed. Its cells are its values, since each value has a row."""
        value = self.cells[:, 0]
        held = self.counts[0][value]
        free = self.available.copy()
        if taken is not None:
            held[taken] += 1
            free[taken] -= 1
        owed = np.maximum(self.least[0][value] - held, 0)
        room = np.maximum(self.most[0][value] - held, 0)
        return None if (owed > np.minimum(free, room)).any() else owed

    def _constraints(self, taken: int | None) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        extra = np.zeros(len(self.cells), np.int64)
        if taken is not None:
            extra[taken] = 1
        rows, low, high = [], [], []
        for place, (counts, least, most) in enumerate(zip(self.counts, self.least, self.most, strict=True)):
            held = counts + np.bincount(self.cells[:, place], weights=extra, minlength=len(counts)).astype(np.int64)
            for value in np.flatnonzero((least > 0) | (most < NO_LIMIT)):
                rows.append((self.cells[:, place] == value).astype(float))
                low.append(max(0, int(least[value] - held[value])))
                high.append(min(max(int(most[value] - held[value]), 0), 2**31))  # members that were there before may exceed it
        return np.array(rows), np.array(low, float), np.array(high, float), extra

    def _explain(self) -> str:
        """Why the minima cannot be met: one value that has too few, the budget, or the columns against one another."""
        for quota, names, least, most, codes, counts in zip(self.quotas, self.names, self.least, self.most, self.codes, self.counts, strict=True):
            there = np.bincount(codes, minlength=len(names))
            short = [
                f"{names[code]!r} should have at least {least[code]}, {min(there[code], most[code])} are possible"
                for code in np.flatnonzero(least > np.minimum(there, most))
            ]
            if short:
                return f"Quota by {quota.by}: {_listed(short)}. Lower the minimum, raise the maximum, or loosen the spec."
            owed = int(np.maximum(least - counts, 0).sum())
            if owed > self.left:
                return f"Quota by {quota.by} asks for at least {owed} more members, the budget leaves {self.left}. Raise it, or lower the minima."
        columns = " and ".join(quota.by for quota in self.quotas)
        if self._plan is not None:
            return f"Quotas by {columns} together ask for at least {int(self._plan.sum())} more members, the budget leaves {self.left}. Raise it, or lower the minima."
        return f"Quotas by {columns} cannot be met together: {self._nearest()}. Lower these minima, or raise the maxima of the other column."

    def _nearest(self) -> str:
        """The minima that are missed when as little as possible is."""
        from scipy.optimize import Bounds, LinearConstraint, milp

        rows, low, high, _ = self._constraints(None)
        n, m = len(self.cells), len(rows)
        cost = np.concatenate([np.zeros(n), np.ones(m)])
        found = milp(
            cost, integrality=np.ones(n + m), bounds=Bounds(0, np.concatenate([self.available, np.full(m, 2**31)])),
            constraints=[LinearConstraint(np.hstack([rows, np.eye(m)]), low, np.inf), LinearConstraint(np.hstack([rows, np.zeros((m, m))]), -np.inf, high)],
        )  # fmt: skip
        assert found.x is not None  # nothing taken is a solution
        named = [
            (quota.by, names[value])
            for quota, names, least, most in zip(self.quotas, self.names, self.least, self.most, strict=True)
            for value in np.flatnonzero((least > 0) | (most < NO_LIMIT))
        ]
        missed = np.rint(found.x[n:]).astype(int)
        return _listed([f"{by} {name!r} would get {int(low[i]) - missed[i]} of {int(low[i])}" for i, (by, name) in enumerate(named) if missed[i]])


def _listed(texts: list[str]) -> str:
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return "; ".join(texts[:SHOWN]) + more
