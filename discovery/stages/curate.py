"""Curate: an immutable dataset version from a spec, every member with its reason, and a digest of what is in it."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from discovery import schemas
from discovery.adapters.storage import table_to_parquet
from discovery.addressing import content_id
from discovery.core.splits import grouped_splits, merge_groups
from discovery.errors import CorruptArtifact, InvalidInput, SpecError
from discovery.spec import CollectionSpec
from discovery.stages.asset_table import asset_table, assets_of, empty_table, novelty_reports
from discovery.stages.candidate_pool import Pool, open_pool, refuse_unknown_columns
from discovery.stages.certificate import across_splits, duplicate_recall, leakage
from discovery.stages.collection_choice import Choice, choose, coverage, in_some_part
from discovery.stages.decisions import CANDIDATE_RULES
from discovery.stages.history import current_snapshot, embedding_sets
from discovery.stages.score import score
from discovery.stages.versions import find_kept_out, find_parent, find_version, parent_of, version_of, yank_of
from discovery.types import DatasetVersion, DuplicateReport, IndexSnapshot, Manifest, NoveltyReport
from discovery.workspace import Workspace

SPLIT_SALT = "splits-2"


@dataclass(frozen=True, slots=True)
class Draft:
    """What a spec gives before it is committed: the version, its members (schemas.MEMBERS), the decision on every asset (schemas.DECISIONS) and
    the facts: `removed` and `not_picked` by rule, `parts`, `quotas`, `coverage`, `certificate`."""

    version: DatasetVersion
    members: pa.Table
    decisions: pa.Table
    facts: dict[str, Any]


def curate(spec: CollectionSpec, ws: Workspace) -> DatasetVersion:
    """The version this spec gives over the current index snapshot; numbered in the catalog, once for a digest.

    Only assets that passed their quality report take part. Members of a parent stay, in their splits. Raises SpecError when
    nothing is left to choose from, quotas cannot be met or the filter is wrong; UnknownRecord for a version that does not exist.
    """
    return numbered(prepare(spec, ws), ws)


def numbered(version: DatasetVersion, ws: Workspace) -> DatasetVersion:
    """A prepared version with a number. Where its digest has one, that version: what is equal in content is one, whatever index it was chosen over.

    Raises InvalidInput when its parent was yanked since it was prepared.
    """
    parent = parent_of(version, ws)
    if parent is not None and (said := yank_of(parent, ws)):
        raise InvalidInput(f"{version.name} grows from a version that cannot be a parent any more: {said}. Choose another parent.")
    row = ws.catalog.add_version(version.name, version.id, version.digest, version.created_at)
    return version_of(row, ws)


def prepare(spec: CollectionSpec, ws: Workspace) -> DatasetVersion:
    """The version, committed but without a number: nobody meets it by name, and `curate` takes it as it is. For a preview. Raises as `curate`."""
    snapshot, novelty, named = _inputs(spec, ws)
    key = _key(spec, snapshot, novelty, named, ws)
    if (found := ws.find(DatasetVersion, key)) is not None:
        return found
    draft = _draft(spec, snapshot, novelty, named, key, ws)
    files = (
        ws.put_file(DatasetVersion, key, "table", table_to_parquet(draft.members), ".parquet", len(draft.members)),
        ws.put_file(DatasetVersion, key, "decisions", table_to_parquet(draft.decisions), ".parquet", len(draft.decisions)),
        ws.put_file(DatasetVersion, key, "facts", json.dumps(draft.facts, indent=1, allow_nan=False).encode(), ".json"),
    )
    return ws.commit(dataclasses.replace(draft.version, files=files))


def draft(spec: CollectionSpec, ws: Workspace) -> Draft:
    """What `curate` would make, committing nothing but novelty reports against a reference that the spec names. Raises as `curate`."""
    snapshot, novelty, named = _inputs(spec, ws)
    return _draft(spec, snapshot, novelty, named, _key(spec, snapshot, novelty, named, ws), ws)


def preview(spec: CollectionSpec, ws: Workspace) -> tuple[DatasetVersion, dict[str, int]]:
    """What `curate` would make, and how many candidates each rule removes."""
    found = draft(spec, ws)
    return found.version, dict(found.facts["removed"])


def candidate_ids(spec: CollectionSpec, ws: Workspace) -> NDArray[np.bytes_]:
    """(n,) S64, ascending: what a spec leaves to choose from now. Raises as `curate`."""
    snapshot, novelty, named = _inputs(spec, ws)
    pool = _pool(spec, snapshot, novelty, named, ws)
    mask = pool.is_candidate
    if spec.mix:
        mask = mask & (in_some_part(pool, novelty, ws) | pool.is_held)
    return pool.ids[mask]


def candidates_of(version: DatasetVersion, ws: Workspace) -> tuple[pa.Table, pa.Table]:
    """The asset table that a version was made over, and of it the rows that it was chosen from; the same whenever they are asked for.

    Of a version from before decisions were kept all assets count. Raises CorruptArtifact when the store lost what the version was made from.
    """
    assets = assets_of(version, ws)
    if not any(ref.role == "decisions" for ref in version.files):
        return assets, assets
    decisions = ws.store.read_table(version, "decisions", columns=["asset_id", "rule"])
    chosen = decisions.filter(pc.is_in(decisions["rule"], pa.array(CANDIDATE_RULES)))
    return assets, assets.filter(pc.is_in(assets["asset_id"], chosen["asset_id"].combine_chunks()))


def version_digest(
    spec: CollectionSpec, members: pa.Table, encoder_id: str, parent: DatasetVersion | None, kept_out: list[DatasetVersion], reference: DatasetVersion | None = None
) -> str:
    """Content id of a version: the spec, what its names stood for, and each member with its split, in canonical order.

    Paths, times, machines and record ids do not enter, so that equal content has one digest everywhere.
    """
    named: dict[str, Any] = {"parent": parent.digest if parent else None, "must_not_leak_into": [version.digest for version in kept_out]}
    if reference is not None:
        named["novelty"] = reference.digest
    pairs = sorted(zip(members["asset_id"].to_pylist(), members["split"].to_pylist(), strict=True))
    return content_id([json.loads(spec.identity()), named, encoder_id, pairs])


def leaked_members(members: pa.Table) -> int:
    """Members that have a copy, directly or through other copies, in another split; 0 by construction, measured all the same."""
    splits: dict[str, set[str]] = {}
    rows = members.select(["component_id", "split"]).to_pylist()
    for row in rows:
        splits.setdefault(row["component_id"], set()).add(row["split"])
    return sum(len(splits[row["component_id"]]) > 1 for row in rows)


@dataclass(frozen=True, slots=True)
class _Named:
    """What the names in a spec stand for now."""

    parent: DatasetVersion | None
    kept_out: list[DatasetVersion]
    reference: DatasetVersion | None

    @property
    def ids(self) -> list[str]:
        return [version.id for version in (self.parent, *self.kept_out, self.reference) if version is not None]


def _inputs(spec: CollectionSpec, ws: Workspace) -> tuple[IndexSnapshot, list[NoveltyReport], _Named]:
    snapshot = current_snapshot(ws)
    reference = spec.novelty.reference
    named = _Named(
        find_parent(spec.parent, ws) if spec.parent else None, [find_kept_out(text, ws) for text in spec.must_not_leak_into],
        find_version(reference, ws) if re.fullmatch(r"[a-z0-9][a-z0-9._-]*@.+", reference) else None,
    )  # fmt: skip
    if not reference:
        return snapshot, novelty_reports(snapshot, ws), named
    try:  # before every batch is scored, which may take long
        refuse_unknown_columns(spec, empty_table())
    except SpecError:  # a list may have brought the column
        refuse_unknown_columns(spec, asset_table(snapshot, ws, []))
    return snapshot, _against(reference, snapshot, ws), named


def _against(reference: str, snapshot: IndexSnapshot, ws: Workspace) -> list[NoveltyReport]:
    """The novelty of every batch of the index against one reference, scored now where it was not yet."""
    duplicates = ws.store.load_record(DuplicateReport, snapshot.duplicates_id)
    reports = []
    for embedded in embedding_sets(snapshot, ws):
        manifest = ws.store.load_record(Manifest, embedded.manifest_id)
        if manifest is None or duplicates is None:
            raise CorruptArtifact(f"Embedding set {embedded.id} has lost its manifest or its duplicate report. Run `discovery verify`.")
        reports.append(score(manifest, embedded, duplicates, ws, reference))
    return reports


def _key(spec: CollectionSpec, snapshot: IndexSnapshot, novelty: list[NoveltyReport], named: _Named, ws: Workspace) -> str:
    return ws.key(DatasetVersion, [], [snapshot.id, *(report.id for report in novelty), *named.ids], spec=spec.identity())


def _draft(spec: CollectionSpec, snapshot: IndexSnapshot, novelty: list[NoveltyReport], named: _Named, key: str, ws: Workspace) -> Draft:
    pool = _pool(spec, snapshot, novelty, named, ws)
    assets = pool.assets
    candidates = np.flatnonzero(pool.is_candidate)
    if not len(candidates):
        removed = ", ".join(f"{rule} removed {n:,}" for rule, n in pool.decisions.counts().items())
        raise SpecError(f"Collection {spec.name}: no candidate is left of {len(assets):,} assets ({removed}). Loosen the spec.")
    ws.report(f"curate: {spec.name}, {len(candidates):,} candidates of {len(assets):,} assets")
    choice = choose(pool, novelty, ws)
    chosen = np.array(sorted([*pool.held, *choice.rows]), np.int64)
    if not len(chosen):
        raise SpecError(_why_empty(pool, choice, candidates))
    candidates = np.flatnonzero(pool.decisions.mask(*CANDIDATE_RULES))
    members = _members(pool, chosen, choice)
    radius, beyond = coverage(pool, chosen, candidates, ws)
    facts = _facts(pool, choice, members, named, snapshot, ws)
    facts["coverage"] = {"radius": radius, "beyond": beyond, "confidence": 0.95}
    across = facts["certificate"]["across_splits"]
    splits = Counter(members["split"].to_pylist())
    inputs = [snapshot.id, *(report.id for report in novelty), *named.ids]
    version = DatasetVersion(
        id=key, inputs=tuple(dict.fromkeys(inputs)), created_at=ws.clock(), name=spec.name,
        digest=version_digest(spec, members, snapshot.encoder_id, named.parent, named.kept_out, named.reference), spec=spec.canonical(),
        snapshot_id=snapshot.id, encoder_id=snapshot.encoder_id, assets=len(members), candidates=len(candidates),
        splits={name: splits[name] for name in spec.splits}, optimality_bound=choice.optimality_bound, leaked=leaked_members(members),
        removed_for_leakage=int(facts["removed"].get("must_not_leak_into", 0)), size_bytes=int(facts["size_bytes"]), coverage_radius=radius,
        coverage_beyond=beyond, split_similarity=across["largest_similarity"] if across else None,
    )  # fmt: skip
    return Draft(version, members, pool.decisions.table(), facts)


def _why_empty(pool: Pool, choice: Choice, candidates: NDArray[np.int64]) -> str:
    """What let none of the candidates in, in words."""
    spec = pool.spec
    smallest = pc.min(pool.assets["size_bytes"].take(pa.array(candidates))).as_py() or 0
    if spec.limit_bytes is not None and smallest > spec.limit_bytes:
        return f"{spec.place('budget')}: nothing was selected: the budget is {spec.limit_bytes:,} bytes, the smallest candidate has {smallest:,}. Raise the budget."
    if spec.mix and not any(part.candidates for part in choice.parts):
        return f"{spec.place('mix')}: nothing was selected: none of the {len(candidates):,} candidates is in a part of the mix. Loosen the rules of its parts."
    if spec.quotas:
        by = " and ".join(quota.by for quota in spec.quotas)
        return f"{spec.place('quotas')}: nothing was selected: the quotas by {by} let none of the {len(candidates):,} candidates in. Raise a max."
    parts = ", ".join(f"{part.name or part.method} took {part.picked:,} of {part.candidates:,} candidates" for part in choice.parts)
    return f"{spec.place()}: nothing was selected: {parts}. Raise the budget, or choose another method."


def _pool(spec: CollectionSpec, snapshot: IndexSnapshot, novelty: list[NoveltyReport], named: _Named, ws: Workspace) -> Pool:
    assets, sets = asset_table(snapshot, ws, novelty), embedding_sets(snapshot, ws)
    refuse_unknown_columns(spec, assets)
    return open_pool(spec, snapshot, assets, sets, _parent_splits(named.parent, ws), named.kept_out, novelty, ws)


def _parent_splits(parent: DatasetVersion | None, ws: Workspace) -> dict[str, str]:
    if parent is None:
        return {}
    rows = ws.store.read_table(parent, columns=["asset_id", "split"]).to_pylist()
    return {row["asset_id"]: row["split"] for row in rows}


def _facts(pool: Pool, choice: Choice, members: pa.Table, named: _Named, snapshot: IndexSnapshot, ws: Workspace) -> dict[str, Any]:
    """What a version says of itself beside its members."""
    spec = pool.spec
    ids = schemas.ids_of(members["asset_id"])
    report = ws.store.load_record(DuplicateReport, snapshot.duplicates_id)
    if report is None:
        raise CorruptArtifact(f"Duplicate report {snapshot.duplicates_id} is missing. Run `discovery verify`.")
    against = [
        {"named": text, "removed": int((pool.decisions.record == version.id).sum()), **leakage(ids, version, report, pool.sets, ws)}
        for text, version in zip(spec.must_not_leak_into, named.kept_out, strict=True)
    ]
    sizes = pool.assets["size_bytes"].take(pool.rows_of(members["asset_id"].to_pylist()))
    return {
        "removed": pool.decisions.counts(),
        "not_picked": pool.decisions.counts(candidates=True),
        "size_bytes": pc.sum(sizes).as_py() or 0,
        "parts": [dataclasses.asdict(part) for part in choice.parts],
        "quotas": choice.quota_costs,
        "certificate": {
            "keep_together": sorted({"duplicate_group", *spec.keep_together}), "stratify": spec.stratify,
            "across_splits": across_splits(ids, members["split"].to_pylist(), pool.sets, ws),
            "duplicates": duplicate_recall(report, ws), "against": against,
        },
    }  # fmt: skip


def _members(pool: Pool, chosen: NDArray[np.int64], choice: Choice) -> pa.Table:
    """The members table in canonical order, with splits cut by group."""
    spec = pool.spec
    together = sorted({"component_id", *(pool.named(name, "keep_together") for name in spec.keep_together)})
    columns = list(dict.fromkeys([*(name for name in schemas.MEMBERS.names if name in pool.assets.column_names), *together]))
    stratum = pool.named(spec.stratify, "stratify") if spec.stratify else ""
    rows = pool.assets.select(list(dict.fromkeys([*columns, *([stratum] if stratum else [])]))).take(pa.array(chosen)).to_pylist()
    ids = [row["asset_id"] for row in rows]
    groups = merge_groups(*([row["asset_id"] if row[column] is None else f"{column} {row[column]}" for row in rows] for column in together))
    fixed = {ids[place]: split for place, row in enumerate(chosen.tolist()) if (split := pool.held.get(row)) is not None}
    strata = [row[stratum] for row in rows] if stratum else None
    splits = grouped_splits(ids, groups, spec.splits, SPLIT_SALT, fixed=fixed, strata=strata)
    pick = {row: (order, gain) for order, (row, gain) in enumerate(zip(choice.rows, choice.gains, strict=True))}
    made = []
    for number, row, split in zip(chosen.tolist(), rows, splits, strict=True):
        order, gain = pick.get(number, (-1, float("nan")))
        made.append(
            {
                **{name: row.get(name) for name in schemas.MEMBERS.names}, "split": split, "reason": _reason(pool, number, order, gain, choice),
                "pick": order, "gain": gain if gain == gain else None, "part": choice.part_of.get(number, ""),
            }
        )  # fmt: skip
    return pa.Table.from_pylist(made, schema=schemas.MEMBERS)


def _reason(pool: Pool, row: int, order: int, gain: float, choice: Choice) -> str:
    if order < 0:
        return "included by name" if pool.held[row] is None else f"member of the parent {pool.spec.parent}"
    part = f"part {choice.part_of[row]}, " if choice.part_of.get(row) else ""
    added = f", gain {gain:.4g}" if gain == gain else ""
    return f"{part}{choice.method_of[row]}: pick {order + 1}{added}"
