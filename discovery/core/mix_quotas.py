"""Quotas over the parts of a mix, which are chosen one after another: what the first must take so that the later ones can meet the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from discovery.core.quota_plan import cells_of, nearest_miss, needs_of, plan
from discovery.core.quotas import NO_LIMIT, Allowance, Limits, Quota
from discovery.errors import InvalidInput


def first_part(
    quotas: Sequence[Quota], is_member: NDArray[np.bool_], is_in: NDArray[np.bool_], places: NDArray[np.int64], limits: Limits, size_bytes: NDArray[np.int64]
) -> tuple[list[Quota], Limits]:
    """The quotas and the limits of the first of p parts, such that whatever it takes within them, the other parts can meet what is left of all minima.

    quotas: over n rows. is_member: (n,) those that count already. is_in: (n, p) what each part can take, in the order in which they choose. places: (p,)
    the most that each takes. limits: of all parts together. size_bytes: (n,). Of the first part as little as can be is asked: its quotas are all maxima, of
    several columns less what is planned for later parts, and minima of the combinations that it must give. Its bytes are less what the
    smallest rows of the later plan have. The last part has the quotas as they are. Raises InvalidInput when the parts cannot meet the minima, with
    what they could.
    """
    n, parts = is_in.shape
    own = Limits(int(places[0]), limits.bytes)
    if parts == 1 or not n or not any(sum(quota.minimum.values()) for quota in quotas):
        return list(quotas), own
    all_of = Allowance(n, is_member, limits, quotas, size_bytes)  # whether there is a way when nobody keeps to shares
    kind = np.zeros(n, np.int64)
    for place in range(parts):
        kind = np.unique(2 * kind + is_in[:, place], return_inverse=True)[1]
    cells, cell_of = cells_of([*all_of.codes, kind], [*(len(names) for names in all_of.names), int(kind.max()) + 1])
    is_free: NDArray[np.bool_] = np.asarray(is_in.any(axis=1))
    available = np.bincount(cell_of[is_free], minlength=len(cells))
    may_take = np.zeros((len(cells), parts), bool)
    may_take[cell_of] = is_in
    needs = needs_of(cells, all_of.counts, all_of.least, all_of.most)
    sizes = None
    if limits.bytes < NO_LIMIT:
        order = np.lexsort((size_bytes, cell_of))
        order = order[is_free[order]]
        starts = np.searchsorted(cell_of[order], np.arange(len(cells)))
        sizes = [size_bytes[order[start : start + count]].tolist() for start, count in zip(starts, np.minimum(available, needs.most), strict=True)]
    weight = np.arange(parts, 0, -1).astype(float)  # what a later part can give is not asked of an earlier one
    found = plan(needs, available, places, may_take, weight)
    if sizes is not None and found is not None and _bytes(found.sum(axis=1), sizes) > limits.bytes:
        found = plan(needs, available, places, may_take, weight, sizes)  # rather more of an earlier part than none at all
    if found is None or (sizes is not None and _bytes(found.sum(axis=1), sizes) > limits.bytes):
        said = all_of.misses(needs, nearest_miss(needs, available, places, may_take))
        why = f"within their shares: {said}" if said else f"within their shares and {limits.bytes:,} bytes"
        raise InvalidInput(f"The parts of the mix could meet the quotas together, but not {why}. Give a part that has these a larger share, or lower the minima.")
    asked, later = found[:, 0], found[:, 1:].sum(axis=1)
    theirs = []
    for place, (quota, names) in enumerate(zip(quotas, all_of.names, strict=True)):
        planned = np.bincount(cells[:, place], weights=later, minlength=len(names)).astype(np.int64)
        kept = dict(zip(names, planned.tolist(), strict=True)) if len(quotas) > 1 else {}
        most = {name: max(bound - kept.get(name, 0), 0) for name, bound in quota.maximum.items()}
        theirs += [replace(quota, minimum={}, maximum=most)] if most else []
    if asked.any():
        labels = np.array([str(cell) for cell in range(len(cells))], object)
        least = {str(cell): int(asked[cell]) for cell in np.flatnonzero(asked)}
        theirs.append(Quota("part of the mix", labels[cell_of], least))
    if sizes is not None:
        own = Limits(own.assets, limits.bytes - (_bytes(asked + later, sizes) - _bytes(asked, sizes)))
    return theirs, own


def _bytes(counts: NDArray[np.int64], sizes: Sequence[Sequence[int]]) -> int:
    """Bytes of the smallest rows of each cell, as many as counts say."""
    return sum(sum(one[:count]) for one, count in zip(sizes, counts.tolist(), strict=True))
