"""The batch table: one row for each picture of one manifest, with every column that an expectation may be on."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from discovery.core.issues import ISSUES, find_issues
from discovery.core.measures import MEASURES
from discovery.stages.asset_table import LISTED, with_attributes
from discovery.types import Manifest
from discovery.workspace import Workspace


def batch_table(manifest: Manifest, ids: list[str], measures: pa.Table | None, ws: Workspace, junk: frozenset[str] = frozenset()) -> pa.Table:
    """One row an asset, in the order of `ids`.

    measures: their measures, row for row, with any further columns of numbers, truth values or text about a picture (asset_id and
    binary ones are left out); None gives null measures, for finding out whether an expectation can be judged at all before anything is measured. junk: assets that people marked so.

    Columns: those of the asset table that come from a manifest, shorter_side_px, aspect (longer side / shorter side), the measures, `<issue>_score` in [0, 1]
    for each of core.issues, marked_junk, and one for each name that lists and sidecars use. Of several listings of an asset the first counts.
    """
    listed = ws.store.read_table(manifest, columns=["asset_id", *LISTED, "attributes"])
    first: dict[str, int] = {}
    for row, asset_id in enumerate(listed["asset_id"].to_pylist()):
        if asset_id:
            first.setdefault(asset_id, row)
    table = listed.take(pa.array([first[asset_id] for asset_id in ids], pa.int64()))
    attributes = table["attributes"].to_pylist()
    table = table.drop_columns(["attributes"]).append_column("category", table["folder"])
    sides = np.array([table["width_px"].to_numpy(), table["height_px"].to_numpy()], np.float64).reshape(2, -1)
    table = table.append_column("shorter_side_px", pa.array(sides.min(axis=0)))
    table = table.append_column("aspect", pa.array(sides.max(axis=0) / np.maximum(sides.min(axis=0), 1.0)))
    if measures is None:
        for name in sorted(MEASURES):
            table = table.append_column(name, pa.nulls(len(table), pa.float64()))
    else:
        for field in measures.schema:
            if field.name not in table.column_names and not pa.types.is_binary(field.type) and not pa.types.is_fixed_size_binary(field.type):
                table = table.append_column(field, measures[field.name])
    return with_attributes(_with_issues(table, measures is not None).append_column("marked_junk", pa.array([i in junk for i in ids], pa.bool_())), attributes)


def _with_issues(table: pa.Table, is_measured: bool) -> pa.Table:
    """The scores of all issues beside what they read; null ones where nothing is measured."""
    scores: dict[str, np.ndarray] = {}
    if is_measured and len(table):
        read = {name for issue in ISSUES.values() for name in issue.reads}
        scores = find_issues({name: np.array(table[name].to_numpy(zero_copy_only=False), np.float64) for name in sorted(read)}).scores
    for name in ISSUES:
        table = table.append_column(f"{name}_score", pa.array(scores[name]) if scores else pa.nulls(len(table), pa.float64()))
    return table
