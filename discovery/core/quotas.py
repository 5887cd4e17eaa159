"""What a selection may still take: a budget in assets and bytes, and fewest and most members for the values of some columns."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from discovery.core.quota_plan import MOST, Needs, cells_of, is_bound, nearest_miss, needs_of, plan
from discovery.errors import InvalidInput

NO_LIMIT = np.iinfo(np.int64).max // 4
SHOWN = 5  # values that are named in a refusal


@dataclass(frozen=True, slots=True)
class Quota:
    """Fewest and most members for the values of one column: values (n,) str, one a candidate; a value that is named in neither is unbounded."""

    by: str
    values: NDArray[np.object_]
    minimum: Mapping[str, int] = field(default_factory=dict)
    maximum: Mapping[str, int] = field(default_factory=dict)

    def of(self, rows: NDArray[np.int64]) -> Quota:
        """The same bounds over some of the rows."""
        return replace(self, values=self.values[rows])


@dataclass(frozen=True, slots=True)
class Limits:
    """How many more members there may be, and of how many bytes together."""

    assets: int
    bytes: int = NO_LIMIT


class Allowance:
    """What may be taken next. A row that may not be taken now may not be taken later either, so that a greedy algorithm drops it.

    Minima are met by a plan: how many of each cell, a combination of values, are still to be taken, the smallest rows where bytes count. A row may be
    taken when a plan is left that fits the budget, the bytes and the maxima. With one column that is the reservation of what is owed; with more it
    is a small integer program (core.quota_plan), solved anew only when the last plan does not show that the row may be taken.
    """

    def __init__(self, n: int, preselected: NDArray[np.bool_], limits: Limits, quotas: Sequence[Quota], size_bytes: NDArray[np.int64] | None) -> None:
        """Raises InvalidInput, with what could be met, when the minima cannot be met together."""
        self.left = limits.assets
        self.bytes_left = limits.bytes
        self.is_sized = limits.bytes < NO_LIMIT
        self.size_bytes = size_bytes if size_bytes is not None else np.zeros(n, np.int64)
        self.taken = preselected.copy()
        self.quotas = tuple(quotas)
        self.names: list[list[str]] = []
        self.codes: list[NDArray[np.int64]] = []
        self.least: list[NDArray[np.int64]] = []
        self.most: list[NDArray[np.int64]] = []
        self.counts: list[NDArray[np.int64]] = []
        for quota in quotas:
            names, codes = coded(quota.values)
            known = set(names)
            absent = [name for name, least in quota.minimum.items() if least > 0 and name not in known]
            if absent:
                raise InvalidInput(f"Quota by {quota.by}: no candidate is {', '.join(map(repr, absent[:SHOWN]))}, of which there should be some.")
            self.names.append(names)
            self.codes.append(codes)
            self.least.append(np.array([quota.minimum.get(name, 0) for name in names], np.int64))
            self.most.append(np.array([quota.maximum.get(name, NO_LIMIT) for name in names], np.int64))
            self.counts.append(np.bincount(codes[preselected], minlength=len(names)))
        self._plan: NDArray[np.int64] | None = None
        if quotas and any(least.any() for least in self.least):
            self.cells, self.cell_of = cells_of(self.codes, [len(names) for names in self.names])
            self.available = np.bincount(self.cell_of[~preselected], minlength=len(self.cells))
            self.closed_from = np.full(len(self.cells), NO_LIMIT)  # bytes: what is as large, or larger, may not be taken any more
            if self.is_sized:
                self._by_size = np.lexsort((self.size_bytes, self.cell_of))
                self._starts = np.searchsorted(self.cell_of[self._by_size], np.arange(len(self.cells) + 1))
            found = self._solve()
            if found is None:
                raise InvalidInput(self._explain())
            self._adopt(found)

    def has_room(self, row: int) -> bool:
        """Whether the row may be taken now."""
        size = int(self.size_bytes[row])
        if self.taken[row] or self.left < 1 or size > self.bytes_left:
            return False
        if any(counts[codes[row]] >= most[codes[row]] for counts, codes, most in zip(self.counts, self.codes, self.most, strict=True)):
            return False
        if self._plan is None or not self._plan.any():
            return True
        cell = int(self.cell_of[row])
        if size >= self.closed_from[cell]:
            return False
        if self._is_within(cell, size):
            return True
        found = self._solve(row) if len(self.quotas) > 1 else None  # of one column there is no other plan
        if found is None:
            self.closed_from[cell] = size if self.is_sized and (len(self.quotas) > 1 or self._is_within(cell, 0)) else 0
            return False
        found[cell] += 1  # it is what is left after the row; with the row it holds now as well
        self._adopt(found)
        return True

    def mask(self) -> NDArray[np.bool_]:
        """(n,) which rows may be taken now, as far as is known: ask `has_room` about the one that is to be taken; what it refuses is not shown again."""
        if self.left < 1:
            return np.zeros(len(self.taken), bool)
        allowed = ~self.taken & (self.size_bytes <= self.bytes_left)
        for counts, codes, most in zip(self.counts, self.codes, self.most, strict=True):
            allowed &= (counts < most)[codes]
        if self._plan is not None and self._plan.any():
            allowed &= self.size_bytes < self.closed_from[self.cell_of]
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
                self._fewer(cell, int(self.size_bytes[row]))
            else:
                self._drop_met(cell)

    @property
    def is_met(self) -> bool:
        """Whether every minimum is reached."""
        return all((counts >= least).all() for counts, least in zip(self.counts, self.least, strict=True))

    def is_owed(self) -> NDArray[np.bool_]:
        """(n,) which rows have a value of which there are fewer than its minimum."""
        owed = np.zeros(len(self.taken), bool)
        for counts, least, codes in zip(self.counts, self.least, self.codes, strict=True):
            owed |= (counts < least)[codes]
        return owed

    def unmet(self, members: NDArray[np.bool_]) -> str:
        """The minima that these members do not reach, in words; empty when they reach all. members: (n,)."""
        return _listed(
            [
                f"{quota.by} {names[code]}: {counts[code]} of {least[code]}"
                for quota, names, codes, least in zip(self.quotas, self.names, self.codes, self.least, strict=True)
                for counts in (np.bincount(codes[members], minlength=len(names)),)
                for code in np.flatnonzero(counts < least)
            ]
        )

    def _is_within(self, cell: int, size: int) -> bool:
        """Whether the plan shows that a row of these bytes may be taken."""
        assert self._plan is not None
        if self._plan[cell] > 0:
            return not self.is_sized or max(size - self._smallest[cell][-1], 0) + self._reserved <= self.bytes_left
        if self._plan.sum() >= self.left or size + self._reserved > self.bytes_left:
            return False
        for place, (counts, most) in enumerate(zip(self.counts, self.most, strict=True)):
            value = self.cells[cell, place]
            planned = int(self._plan[self.cells[:, place] == value].sum()) if len(self.quotas) > 1 else 0
            if counts[value] + planned + 1 > most[value]:
                return False
        return True

    def _adopt(self, found: NDArray[np.int64]) -> None:
        """Go on by a plan; where bytes count, keep the sizes of its rows, ascending, and their sum."""
        self._plan = found
        self._smallest = {cell: self._sizes(cell, int(found[cell])) for cell in np.flatnonzero(found).tolist()} if self.is_sized else {}
        self._reserved = sum(sum(sizes) for sizes in self._smallest.values())

    def _sizes(self, cell: int, count: int, without: int = -1) -> list[int]:
        """Bytes of the smallest rows of a cell that can be taken, ascending, but for one row."""
        rows = self._by_size[self._starts[cell] : self._starts[cell + 1]]
        free = rows[~self.taken[rows] & (rows != without)][:count]
        return [int(size) for size in self.size_bytes[free]]

    def _fewer(self, cell: int, size: int = NO_LIMIT) -> None:
        """One of a cell less in the plan: that which has the bytes, or the largest."""
        assert self._plan is not None
        self._plan[cell] -= 1
        if self.is_sized:
            sizes = self._smallest[cell]
            self._reserved -= sizes.pop(bisect_left(sizes, size) if size < sizes[-1] else -1)

    def _drop_met(self, cell: int) -> None:
        """Let a plan be smaller where a row that it did not name reached a minimum; only what saves a solution later."""
        assert self._plan is not None
        if len(self.quotas) < 2:
            return
        for other in np.flatnonzero((self._plan > 0) & (self.cells == self.cells[cell]).any(axis=1)).tolist():
            if all(
                self.counts[place][self.cells[other, place]] + int(self._plan[self.cells[:, place] == self.cells[other, place]].sum())
                > self.least[place][self.cells[other, place]]
                for place in range(len(self.quotas))
            ):
                self._fewer(other)

    def _solve(self, row: int | None = None, is_limited: bool = True) -> NDArray[np.int64] | None:
        """The fewest of each cell that meet all minima within the maxima, or where bytes count the smallest, after a row; None when there is no way.

        is_limited: also within the assets and the bytes that are left.
        """
        if len(self.quotas) == 1:
            found = self._owed()
            if found is None or not is_limited:
                return found
            return found if found.sum() <= self.left and sum(self._bytes_of(found)) <= self.bytes_left else None
        needs, available = self._needs(row)
        sizes = None
        if self.is_sized:
            sizes = [self._sizes(cell, count, -1 if row is None else row) for cell, count in enumerate(np.minimum(available, needs.most).tolist())]
        places = np.array([self.left - (row is not None) if is_limited else MOST])
        found = plan(needs, available, places, np.ones((len(self.cells), 1), bool), np.ones(1), sizes)
        if found is None or sizes is None or not is_limited:
            return None if found is None else found[:, 0]
        size = sum(sum(one[:count]) for one, count in zip(sizes, found[:, 0].tolist(), strict=True)) + (0 if row is None else int(self.size_bytes[row]))
        return found[:, 0] if size <= self.bytes_left else None

    def _owed(self) -> NDArray[np.int64] | None:
        """The plan of one column: what each value is still owed. Its cells are its values, since each value has a row."""
        owed = np.maximum(self.least[0] - self.counts[0], 0)
        room = np.maximum(self.most[0] - self.counts[0], 0)
        return None if (owed > np.minimum(self.available, room)).any() else owed

    def _bytes_of(self, found: NDArray[np.int64]) -> list[int]:
        """Bytes of the smallest rows of each cell that a plan names."""
        return [sum(self._sizes(cell, int(found[cell]))) for cell in np.flatnonzero(found).tolist()] if self.is_sized else []

    def _needs(self, row: int | None) -> tuple[Needs, NDArray[np.int64]]:
        """What is to be met after a row, and (c,) how many rows of each cell are left for it."""
        held, available = [counts.copy() for counts in self.counts], self.available.copy()
        if row is not None:
            available[self.cell_of[row]] -= 1
            for counts, codes in zip(held, self.codes, strict=True):
                counts[codes[row]] += 1
        return needs_of(self.cells, held, self.least, self.most), available

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
        columns = " and ".join(dict.fromkeys(quota.by for quota in self.quotas))
        asking = f"Quota by {columns} asks" if len(self.quotas) == 1 else f"Quotas by {columns} together ask"
        found = self._solve(is_limited=False)
        if found is None:
            return f"Quotas by {columns} cannot be met together: {self._nearest()}. Lower these minima, or raise the maxima of the other column."
        if not self.is_sized:
            return f"{asking} for at least {int(found.sum())} more members, the budget leaves {self.left}. Raise it, or lower the minima."
        members = "" if found.sum() <= self.left else f", and the budget leaves {self.left:,} members"
        return (
            f"{asking} for members that have at least {sum(self._bytes_of(found)):,} bytes, even the smallest ones; the budget leaves {self.bytes_left:,} bytes{members}. "
            "Raise it, or lower the minima."
        )

    def _nearest(self) -> str:
        """The minima that are missed when as little as possible is."""
        needs, available = self._needs(None)
        return self.misses(needs, nearest_miss(needs, available, np.array([MOST]), np.ones((len(available), 1), bool)))

    def misses(self, needs: Needs, missed: NDArray[np.int64]) -> str:
        """In words what these needs would get. missed: as `nearest_miss` has it."""
        named = [
            (quota.by, names[value])
            for quota, names, least, most in zip(self.quotas, self.names, self.least, self.most, strict=True)
            for value in np.flatnonzero(is_bound(least, most))
        ]
        low = needs.low.astype(int)
        return _listed([f"{by} {name!r} would get {low[i] - missed[i]} of {low[i]}" for i, (by, name) in enumerate(named) if missed[i]])


def coded(values: NDArray[np.object_]) -> tuple[list[str], NDArray[np.int64]]:
    """Distinct values, ascending, and (n,) which of them each is."""
    texts = values.tolist()
    names = sorted(set(texts))
    place = {name: code for code, name in enumerate(names)}
    return names, np.fromiter((place[text] for text in texts), np.int64, len(texts))


def _listed(texts: list[str]) -> str:
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return "; ".join(texts[:SHOWN]) + more
