"""Links between the splits of a parent: a member never moves and no group is in two splits, so that some members leave and some candidates stay out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discovery.core.splits import joining_rows
from discovery.errors import SpecError
from discovery.stages.decisions import link_words
from discovery.types import IndexSnapshot
from discovery.workspace import Workspace

if TYPE_CHECKING:
    from discovery.stages.candidate_pool import Pool


def unlink_members(pool: Pool, snapshot: IndexSnapshot, included: NDArray[np.int64], ws: Workspace) -> None:
    """Members of the parent that belong together now, though in two splits: those in the larger one leave.

    included: rows that are in by name, which do not leave. Raises SpecError when one would have to, or when the spec lacks a split.
    """
    named = set(included.tolist())
    if gone := _leave_out(pool, sorted(_members(pool), key=lambda row: row not in named), "links_splits", snapshot, named):
        for row in gone:
            del pool.held[row]
        ws.report(f"curate: {len(gone):,} members of {pool.spec.parent} leave, since they belong together with members of a smaller split")


def keep_out_joining(pool: Pool, snapshot: IndexSnapshot) -> None:
    """Leave out candidates that would join members of two splits, also through candidates before them. Raises SpecError for one that is included by name."""
    included = sorted(row for row, split in pool.held.items() if split is None)
    free = np.flatnonzero(pool.is_candidate & ~pool.is_held).tolist()
    _leave_out(pool, [*_members(pool), *included, *free], "joins_splits", snapshot, set(included))


def _members(pool: Pool) -> list[int]:
    """The parent's members, those of the smallest split first."""
    spec = pool.spec
    order = {name: place for place, name in enumerate(sorted(spec.splits, key=lambda name: (spec.splits[name], name)))}
    held = {row: split for row, split in pool.held.items() if split is not None}
    if unknown := sorted(set(held.values()) - set(order)):
        raise SpecError(f"Collection {spec.name}: members of {spec.parent} are in splits {', '.join(unknown)}, which the spec does not have. Add them.")
    return sorted(held, key=lambda row: (order[held[row]], row))


def _leave_out(pool: Pool, rows: list[int], rule: str, snapshot: IndexSnapshot, named: set[int]) -> list[int]:
    """Decide on those of the rows, in this order, that join two splits; returns them. Raises SpecError for one that is named."""
    names = ["component_id", *sorted({pool.named(name, "keep_together") for name in pool.spec.keep_together} - {"component_id"})]
    codes = np.stack([_codes(pool, name, rows) for name in names])
    linked = np.flatnonzero((codes >= 0).any(axis=0))
    rows = [rows[place] for place in linked.tolist()]
    columns = [[None if code < 0 else code for code in one[linked].tolist()] for one in codes]
    joining = joining_rows(columns, [pool.held.get(row) for row in rows])
    for place, (other, column) in joining.items():
        row, member, linked_by = rows[place], pool.ids[rows[other]].decode(), names[column]
        if row in named:
            raise SpecError(
                f"{pool.spec.place('include')}: include: {pool.ids[row].decode()} would join members of {pool.spec.parent} that are in two splits: it belongs together with "
                f"{member} ({link_words(linked_by)}) and with one of another split. Take it out of include, or exclude the members of one side."
            )
        record = snapshot.duplicates_id if linked_by == "component_id" else ""
        pool.decisions.decide(np.array([row]), rule, evidence=[member], record=record, linked_by=linked_by)
    return [rows[place] for place in joining]


def _codes(pool: Pool, name: str, rows: list[int]) -> NDArray[np.int64]:
    """(m,) a number for each value of a column, -1 for null and for what only one of the rows has."""
    values = pool.assets[name].take(pa.array(rows, pa.int64())).combine_chunks().dictionary_encode()
    codes = values.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    single = np.bincount(codes[codes >= 0], minlength=1) == 1
    return np.where((codes < 0) | single[codes], -1, codes)
