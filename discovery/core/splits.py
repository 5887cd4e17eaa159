"""Splits cut by group, never by row: what belongs together stays together, and sizes are as exact as the groups allow."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from discovery.errors import InvalidInput


def merge_groups(*columns: Sequence[Any]) -> list[int]:
    """One group key a row, such that rows with an equal value in any column share it, also through other rows.

    columns: one or more sequences of n values. Returns n row numbers, the smallest of each group.

    >>> merge_groups(["a", "a", "b", "c"], [1, 2, 2, 3])
    [0, 0, 0, 3]
    """
    n = len(columns[0]) if columns else 0
    root = list(range(n))

    def find(row: int) -> int:
        while root[row] != row:
            root[row] = root[root[row]]
            row = root[row]
        return row

    for column in columns:
        first: dict[Any, int] = {}
        for row, value in enumerate(column):
            a, b = find(first.setdefault(value, row)), find(row)
            root[max(a, b)] = min(a, b)
    return [find(row) for row in range(n)]


def joining_rows(columns: Sequence[Sequence[Any]], splits: Sequence[str | None]) -> dict[int, tuple[int, int]]:
    """The rows that would join two splits: to each the first row of another split that it belongs together with, and the column by which.

    columns: sequences of n values; rows with an equal value in one belong together, also through others; None links to nothing. splits: of each of
    n rows, None where it is not decided. Rows are taken in their order: one that belongs together with rows of two splits is left, any other is
    taken and links those after it. So of what is taken no group is in two splits.

    >>> joining_rows([["x", "x", "y"], [1, None, 1]], ["test", "train", None])
    {1: (0, 0)}
    """
    root: list[int] = []  # of each value of a column, union-find
    owner: dict[int, tuple[str, int]] = {}  # of a root: the split of its rows, and the first of them
    known: list[dict[Any, int]] = [{} for _ in columns]
    left: dict[int, tuple[int, int]] = {}

    def find(node: int) -> int:
        while root[node] != node:
            root[node] = root[root[node]]
            node = root[node]
        return node

    for row, split in enumerate(splits):
        nodes = []
        found: dict[str, tuple[int, int]] = {}
        for place, column in enumerate(columns):
            if (value := column[row]) is None:
                continue
            node = known[place].get(value)
            if node is None:
                node = known[place][value] = len(root)
                root.append(node)
            nodes.append(node := find(node))
            if node in owner:
                found.setdefault(owner[node][0], (owner[node][1], place))
        if len({*found, *([split] if split is not None else [])}) > 1:
            left[row] = min(other for name, other in found.items() if name != split)
        elif nodes:
            first = min(nodes)
            owned = (next(iter(found)), min(other for other, _ in found.values())) if found else (split, row) if split is not None else None
            for node in nodes:
                root[node] = first
            if owned is not None:
                owner[first] = owned
    return left


def grouped_splits(
    asset_ids: Sequence[str], group_keys: Sequence[Any], fractions: Mapping[str, float], salt: str,
    fixed: Mapping[str, str] | None = None, strata: Sequence[Any] | None = None,
) -> list[str]:  # fmt: skip
    """A split name for each asset; assets with equal group keys get the same one. Independent of the order of the assets.

    fractions: split name to share, summing to 1; sizes are whole numbers by the largest remainder, reached exactly as far as groups allow. salt:
    enters the order in which groups are placed. fixed: assets whose split is decided (members of a parent version); their group follows
    them. strata: a value for each asset; every split gets its share of every value, as near as the sizes and groups allow.
    Larger groups are placed first, each where most of what it holds is missing; equal ones in the order of their salted hash, the values taking
    turns. Where splits tie the larger share counts, then the name, never the order of `fractions`. Raises InvalidInput when shares do not sum to 1,
    a fixed split is unknown, or a group has members fixed in two splits.

    >>> grouped_splits(["a", "b", "c", "d"], [0, 0, 1, 2], {"train": 0.5, "test": 0.5}, "s")[:2]
    ['test', 'test']
    """
    if not fractions or abs(sum(fractions.values()) - 1) > 1e-6 or min(fractions.values()) < 0:
        raise InvalidInput(f"Expected split shares that sum to 1, found {dict(fractions)}.")
    decided = {asset_id: split for asset_id, split in (fixed or {}).items()}
    if unknown := sorted(set(decided.values()) - set(fractions)):
        raise InvalidInput(f"Fixed members are in splits {unknown}, which are not among {sorted(fractions)}.")
    names = sorted(fractions, key=lambda name: (-fractions[name], name))
    values = [str(value) for value in strata] if strata is not None else [""] * len(asset_ids)
    stratum = dict(zip(asset_ids, values, strict=True))
    members: dict[Any, list[str]] = defaultdict(list)
    for asset_id, key in zip(asset_ids, group_keys, strict=True):
        members[key].append(asset_id)
    need = dict(zip(names, largest_remainder([fractions[name] for name in names], len(asset_ids)), strict=True))
    sizes = Counter(values)
    wanted = {(value, name): share * size for value, size in sizes.items() for name, share in fractions.items()}
    chosen: dict[str, str] = {}

    def place(group: list[str], split: str) -> None:
        need[split] -= len(group)
        for asset_id in group:
            wanted[stratum[asset_id], split] -= 1
            chosen[asset_id] = split

    free = []
    for group in members.values():
        held = sorted(asset_id for asset_id in group if asset_id in decided)
        if len(splits := {decided[asset_id] for asset_id in held}) > 1:
            raise InvalidInput(f"{held[0]} and {len(held) - 1} others are one group, but are fixed in splits {', '.join(sorted(splits))}: no group can be in two splits.")
        if held:
            place(group, decided[held[0]])
        else:
            free.append(sorted(group))
    turn = _turns([group[0] for group in free], stratum, salt)
    for group in sorted(free, key=lambda ids: (-len(ids), turn[ids[0]])):
        held_values = Counter(stratum[asset_id] for asset_id in group)
        open_splits = [name for name in names if need[name] >= len(group)] or [max(names, key=lambda name: (need[name], -names.index(name)))]
        place(group, max(open_splits, key=lambda name: (sum(n * wanted[v, name] for v, n in held_values.items()), need[name], -names.index(name))))
    return [chosen[asset_id] for asset_id in asset_ids]


def largest_remainder(shares: Sequence[float], total: int) -> list[int]:
    """Whole numbers that sum to the total, in these shares: each rounded down, the largest remainders up, the first of equal ones.

    >>> largest_remainder([0.8, 0.1, 0.1], 14), largest_remainder([1, 1, 1], 4)
    ([11, 2, 1], [2, 1, 1])
    """
    whole = sum(shares)
    exact = [round(share / whole * total, 9) for share in shares]
    found = [int(value) for value in exact]
    rest = sorted(range(len(exact)), key=lambda place: (-(exact[place] - found[place]), place))
    for place in rest[: total - sum(found)]:
        found[place] += 1
    return found


def _turns(firsts: list[str], stratum: Mapping[str, str], salt: str) -> dict[str, tuple[float, bytes]]:
    """By which groups of one size are ordered: how far along their stratum's salted order they are, so that strata take turns in proportion."""
    digest = {asset_id: hashlib.sha256((salt + asset_id).encode()).digest() for asset_id in firsts}
    by_value: dict[str, list[str]] = defaultdict(list)
    for asset_id in sorted(firsts, key=digest.__getitem__):
        by_value[stratum[asset_id]].append(asset_id)
    return {
        asset_id: ((place + 0.5) / len(ids), digest[asset_id]) for ids in by_value.values() for place, asset_id in enumerate(ids)
    }  # fmt: skip
