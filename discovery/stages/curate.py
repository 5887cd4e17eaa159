"""Curate: an immutable dataset version from a spec, every member with its reason, and a digest of what is in it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discovery import schemas
from discovery.adapters.filters import filter_assets
from discovery.adapters.storage import table_to_parquet
from discovery.addressing import content_id
from discovery.core.selection import SELECTORS, Candidates, Quotas, Selection
from discovery.core.splits import grouped_splits, merge_groups
from discovery.errors import SpecError
from discovery.spec import CollectionSpec
from discovery.stages.asset_table import asset_table, column_name, novelty_reports
from discovery.stages.history import current_snapshot, embedding_sets, load_snapshot
from discovery.stages.shards import load_vectors
from discovery.stages.versions import find_version, member_ids
from discovery.types import DatasetVersion, IndexSnapshot, NoveltyReport
from discovery.workspace import Workspace

EXAMPLE_POOL = 10  # by example, the nearest 10 x budget candidates go on to selection
SPLIT_SALT = "splits-1"


@dataclass
class _Pool:
    """Candidates as they are narrowed: the table, and how many each rule removed."""

    table: pa.Table
    removed: dict[str, int] = field(default_factory=dict)

    def keep(self, rule: str, mask: list[bool] | NDArray[np.bool_]) -> None:
        kept = np.asarray(mask, bool)
        self.removed[rule] = int((~kept).sum())
        self.table = self.table.filter(pa.array(kept))

    def column(self, name: str) -> list[Any]:
        values: list[Any] = self.table[name].to_pylist()
        return values


def curate(spec: CollectionSpec, ws: Workspace) -> DatasetVersion:
    """The version this spec gives over the current index snapshot; numbered in the catalog, once for a digest.

    Only assets that passed their quality report take part. Members of a parent stay, in their splits. Raises SpecError when
    nothing is left to choose from, quotas cannot be met or the filter is wrong; UnknownRecord for a version that does not exist.
    """
    version, _ = _curate(spec, ws, commit=True)
    return version


def preview(spec: CollectionSpec, ws: Workspace) -> tuple[DatasetVersion, dict[str, int]]:
    """What `curate` would make, committing nothing, and how many candidates each rule removes."""
    return _curate(spec, ws, commit=False)


def _curate(spec: CollectionSpec, ws: Workspace, *, commit: bool) -> tuple[DatasetVersion, dict[str, int]]:
    snapshot = current_snapshot(ws)
    novelty = novelty_reports(snapshot, ws)
    parent = find_version(spec.parent, ws) if spec.parent else None
    kept_out = [find_version(text, ws) for text in spec.must_not_leak_into]
    inputs = [snapshot.id, *(report.id for report in novelty), *(v.id for v in ([parent] if parent else []) + kept_out)]
    key = ws.key(DatasetVersion, [], inputs, spec=spec.canonical())
    if commit and (found := ws.find(DatasetVersion, key)) is not None:
        ws.catalog.add_version(found.name, found.id, found.digest, found.created_at)
        return found, {}

    assets = asset_table(snapshot, ws, novelty)
    parent_split = _parent_splits(parent, ws)
    pool = _narrow(spec, snapshot, assets, parent_split, kept_out, ws)
    candidates = len(pool.table)
    if not candidates:
        removed = ", ".join(f"{rule} removed {n:,}" for rule, n in pool.removed.items() if n)
        raise SpecError(f"Collection {spec.name}: no candidate is left of {len(assets):,} assets ({removed}). Loosen the spec.")
    if commit:
        ws.report(f"curate: {spec.name}, {candidates:,} candidates of {len(assets):,} assets")
    selection = _select(spec, pool, parent_split, snapshot, ws)
    table = _members(spec, pool.table, selection, parent_split)
    splits = {name: table["split"].to_pylist().count(name) for name in spec.splits}
    digest = version_digest(spec, table, snapshot.encoder_id, parent, kept_out)
    bound = float(selection.optimality_bound)
    files = (
        ws.put_file(DatasetVersion, key, "table", table_to_parquet(table), ".parquet", len(table)),
        ws.put_file(DatasetVersion, key, "removed", json.dumps(pool.removed, sort_keys=True).encode(), ".json"),
    ) if commit else ()  # fmt: skip
    version = DatasetVersion(
        id=key, inputs=tuple(inputs), created_at=ws.clock(), files=files, name=spec.name, digest=digest, spec=spec.canonical(),
        snapshot_id=snapshot.id, encoder_id=snapshot.encoder_id, assets=len(table), candidates=candidates, splits=splits,
        optimality_bound=None if math.isnan(bound) else bound, leaked=leaked_members(table),
        removed_for_leakage=pool.removed.get("must_not_leak_into", 0),
    )  # fmt: skip
    if commit:
        version = ws.commit(version)
        ws.catalog.add_version(version.name, version.id, version.digest, version.created_at)
    return version, pool.removed


def candidates_of(version: DatasetVersion, ws: Workspace) -> tuple[pa.Table, pa.Table]:
    """The asset table that a version was made over, and of it the rows that it was chosen from; the same whenever they are asked for.

    Raises CorruptArtifact when the store lost what the version was made from.
    """
    snapshot = load_snapshot(version.snapshot_id, ws)
    novelty = [report for key in version.inputs if (report := ws.store.load_record(NoveltyReport, key)) is not None]
    assets = asset_table(snapshot, ws, novelty)
    spec = CollectionSpec.model_validate_json(version.spec)
    parent = find_version(spec.parent, ws) if spec.parent else None
    kept_out = [find_version(text, ws) for text in spec.must_not_leak_into]
    return assets, _narrow(spec, snapshot, assets, _parent_splits(parent, ws), kept_out, ws).table


def version_digest(
    spec: CollectionSpec, members: pa.Table, encoder_id: str, parent: DatasetVersion | None, kept_out: list[DatasetVersion]
) -> str:
    """Content id of a version: the spec, what its names stood for, and each member with its split, in canonical order.

    Paths, times, machines and record ids do not enter, so that equal content has one digest everywhere.
    """
    named = {"parent": parent.digest if parent else None, "must_not_leak_into": [version.digest for version in kept_out]}
    pairs = sorted(zip(members["asset_id"].to_pylist(), members["split"].to_pylist(), strict=True))
    return content_id([json.loads(spec.canonical()), named, encoder_id, pairs])


def leaked_members(members: pa.Table) -> int:
    """Members that have a copy, directly or through other copies, in another split; 0 by construction, measured all the same."""
    splits: dict[str, set[str]] = {}
    rows = members.select(["component_id", "split"]).to_pylist()
    for row in rows:
        splits.setdefault(row["component_id"], set()).add(row["split"])
    return sum(len(splits[row["component_id"]]) > 1 for row in rows)


def _parent_splits(parent: DatasetVersion | None, ws: Workspace) -> dict[str, str]:
    if parent is None:
        return {}
    rows = ws.store.read_table(parent, columns=["asset_id", "split"]).to_pylist()
    return {row["asset_id"]: row["split"] for row in rows}


def _narrow(
    spec: CollectionSpec, snapshot: IndexSnapshot, assets: pa.Table, parent_split: dict[str, str], kept_out: list[DatasetVersion],
    ws: Workspace,
) -> _Pool:  # fmt: skip
    """Apply the spec's rules in order; members of the parent pass all of them but leakage."""
    pool = _Pool(assets)
    component = dict(zip(pool.column("asset_id"), pool.column("component_id"), strict=True))
    gone = zip(pool.column("asset_id"), pool.column("is_removed"), strict=True)
    pool.keep("removed_at_source", [i in parent_split or not removed for i, removed in gone])
    if spec.where:
        passing = set(filter_assets(assets, spec.where)["asset_id"].to_pylist()) | set(parent_split)
        pool.keep("where", [asset_id in passing for asset_id in pool.column("asset_id")])
    if kept_out:
        theirs = [asset_id for version in kept_out for asset_id in member_ids(version, ws)]
        closed = {component.get(asset_id, asset_id) for asset_id in theirs} | set(theirs)
        pairs = zip(pool.column("asset_id"), pool.column("component_id"), strict=True)
        pool.keep("must_not_leak_into", [asset_id not in closed and group not in closed for asset_id, group in pairs])
    if spec.duplicates == "drop":
        taken = {component[asset_id] for asset_id in parent_split if asset_id in component}
        rows = zip(pool.column("asset_id"), pool.column("is_keeper"), pool.column("component_id"), strict=True)
        pool.keep("duplicates", [i in parent_split or (bool(keeper) and group not in taken) for i, keeper, group in rows])
    if spec.novelty.only_novel:
        rows = zip(pool.column("asset_id"), pool.column("is_novel"), pool.column("q_value"), strict=True)
        pool.keep("only_novel", [i in parent_split or bool(novel and q <= spec.novelty.fdr) for i, novel, q in rows])
    if spec.like or spec.unlike:
        pool.keep("by_example", _near_examples(spec, pool, parent_split, snapshot, ws))
    return pool


def _near_examples(
    spec: CollectionSpec, pool: _Pool, parent_split: dict[str, str], snapshot: IndexSnapshot, ws: Workspace
) -> list[bool]:
    ids, vectors = load_vectors(embedding_sets(snapshot, ws), ws)
    row_of = {asset_id: row for row, asset_id in enumerate(ids)}

    def mean(texts: tuple[str, ...]) -> NDArray[np.float32]:
        rows = []
        for text in texts:
            matches = [asset_id for asset_id in ids if asset_id.startswith(text)] if len(text) >= 4 else []
            if len(matches) != 1:
                raise SpecError(
                    f"Collection {spec.name}: example {text!r} is {'not' if not matches else 'ambiguous'} in the index."
                )
            rows.append(vectors[row_of[matches[0]]])
        return np.mean(rows, axis=0) if rows else np.zeros(vectors.shape[1], np.float32)

    direction = mean(spec.like) - mean(spec.unlike)
    names = pool.column("asset_id")
    similarity = vectors[[row_of[asset_id] for asset_id in names]] @ direction
    order = sorted(range(len(names)), key=lambda row: (-float(similarity[row]), names[row]))
    nearest = set(order[: EXAMPLE_POOL * spec.budget])
    return [row in nearest or names[row] in parent_split for row in range(len(names))]


def _select(spec: CollectionSpec, pool: _Pool, parent_split: dict[str, str], snapshot: IndexSnapshot, ws: Workspace) -> Selection:
    ids, vectors = load_vectors(embedding_sets(snapshot, ws), ws)
    row_of = {asset_id: row for row, asset_id in enumerate(ids)}
    names = pool.column("asset_id")
    quota = spec.quotas[0] if spec.quotas else None
    by = column_name(quota.by) if quota else ""
    if quota and by not in pool.table.column_names:
        raise SpecError(
            f"Collection {spec.name}: quota by {quota.by!r}: no such column. Known: {', '.join(pool.table.column_names)}."
        )
    categories = np.array([str(value) for value in pool.column(by)], object) if quota else None
    values = sorted(set(categories.tolist())) if categories is not None else []
    quotas = Quotas(
        minimum={v: quota.min for v in values} if quota and quota.min is not None else {},
        maximum={v: quota.max for v in values} if quota and quota.max is not None else {},
    ) if quota else None  # fmt: skip
    candidates = Candidates(
        asset_ids=names, vectors=vectors[[row_of[asset_id] for asset_id in names]],
        novelty=np.array([math.nan if v is None else v for v in pool.column("novelty")], np.float64),
        categories=categories, preselected=np.array([asset_id in parent_split for asset_id in names], bool),
    )  # fmt: skip
    kept = int(candidates.preselected.sum())
    budget = min(spec.budget - kept, len(names) - kept)
    if budget < 0:
        raise SpecError(
            f"Collection {spec.name}: the parent's {kept} members exceed the budget of {spec.budget}. Raise the budget."
        )
    return SELECTORS[spec.select.method](candidates, budget, quotas, spec.select.seed)


def _members(spec: CollectionSpec, table: pa.Table, selection: Selection, parent_split: dict[str, str]) -> pa.Table:
    """The members table in canonical order, with splits cut by group."""
    rows = table.to_pylist()
    picked = {
        int(row): (order, float(gain)) for order, (row, gain) in enumerate(zip(selection.indices, selection.gains, strict=True))
    }
    members = [(row, picked.get(number)) for number, row in enumerate(rows) if number in picked or row["asset_id"] in parent_split]
    members.sort(key=lambda member: member[0]["asset_id"])
    ids = [row["asset_id"] for row, _ in members]
    columns = {"duplicate_group": "component_id", "video": "video_id"}
    together = sorted({"component_id", *(columns.get(name, name) for name in spec.keep_together)})
    groups = merge_groups(*([row["asset_id"] if row[column] is None else row[column] for row, _ in members] for column in together))
    fixed = {asset_id: parent_split[asset_id] for asset_id in ids if asset_id in parent_split}
    splits = grouped_splits(ids, groups, spec.splits, SPLIT_SALT, fixed=fixed)
    made = []
    for (row, pick), split in zip(members, splits, strict=True):
        order, gain = pick if pick else (-1, None)
        reason = f"{spec.select.method}: pick {order + 1}, gain {gain:.4g}" if pick else f"member of the parent {spec.parent}"
        made.append(
            {
                **{name: row.get(name) for name in schemas.MEMBERS.names},
                "split": split,
                "reason": reason,
                "pick": order,
                "gain": gain,
            }
        )
    return pa.Table.from_pylist(made, schema=schemas.MEMBERS)
