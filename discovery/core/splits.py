"""Splits cut by group, never by row: what belongs together stays together, and sizes are as exact as the groups allow."""

from __future__ import annotations

import hashlib
from collections import defaultdict
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


def grouped_splits(
    asset_ids: Sequence[str], group_keys: Sequence[Any], fractions: Mapping[str, float], salt: str,
    fixed: Mapping[str, str] | None = None,
) -> list[str]:  # fmt: skip
    """A split name for each asset; assets with equal group keys get the same one. Independent of the order of the assets.

    fractions: split name to share, summing to 1. salt: enters the order in which groups are placed. fixed: assets whose split is
    decided (members of a parent version); their group follows the smallest such id. Larger groups are placed first, each where most
    is missing; equal ones in the order of their salted hash. Raises InvalidInput when shares do not sum to 1 or a fixed split is
    unknown.

    >>> grouped_splits(["a", "b", "c", "d"], [0, 0, 1, 2], {"train": 0.5, "test": 0.5}, "s")[:2]
    ['train', 'train']
    """
    if not fractions or abs(sum(fractions.values()) - 1) > 1e-6 or min(fractions.values()) < 0:
        raise InvalidInput(f"Expected split shares that sum to 1, found {dict(fractions)}.")
    decided = {asset_id: split for asset_id, split in (fixed or {}).items()}
    if unknown := sorted(set(decided.values()) - set(fractions)):
        raise InvalidInput(f"Fixed members are in splits {unknown}, which are not among {sorted(fractions)}.")
    members: dict[Any, list[str]] = defaultdict(list)
    for asset_id, key in zip(asset_ids, group_keys, strict=True):
        members[key].append(asset_id)
    missing = {name: share * len(asset_ids) for name, share in fractions.items()}
    order = {name: place for place, name in enumerate(fractions)}
    chosen: dict[str, str] = {}

    def place(group: list[str], split: str) -> None:
        missing[split] -= len(group)
        chosen.update((asset_id, split) for asset_id in group)

    free = []
    for group in members.values():
        held = sorted(asset_id for asset_id in group if asset_id in decided)
        if held:
            place(group, decided[held[0]])
        else:
            free.append(group)
    for group in sorted(free, key=lambda ids: (-len(ids), hashlib.sha256((salt + min(ids)).encode()).digest())):
        place(group, max(missing, key=lambda name: (missing[name], -order[name])))
    return [chosen[asset_id] for asset_id in asset_ids]
