"""Check a collection: what is expected of a dataset version as a whole and of its members, with the report kept beside it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from discovery import schemas
from discovery.adapters.storage import table_to_parquet
from discovery.config import CollectionConfig
from discovery.core.collection_expectations import BUILT_IN, NUMBERS, UNIT_VECTOR, collection_expectations
from discovery.core.draws import draw, id_array
from discovery.core.expectations import Expectation, Outcome, with_users
from discovery.core.knn import exact_knn
from discovery.core.samples import Sample, defect_rate_bound, statement
from discovery.errors import ConfigError, nearest
from discovery.spec import CollectionSpec, stored_spec
from discovery.stages.collection_report import collection_html
from discovery.stages.curate import candidates_of, leaked_members
from discovery.stages.decisions import sentence
from discovery.stages.expected import Judgement, judge, users_expectations
from discovery.stages.history import embedding_sets, load_snapshot
from discovery.stages.label_findings import LabelFindings, label_column, label_findings
from discovery.stages.reread import Reread, reread
from discovery.stages.shards import vectors_for
from discovery.stages.versions import kept_out_of, member_ids, parent_of
from discovery.types import CollectionReport, DatasetVersion
from discovery.workspace import Workspace

PARENT_RULES = ("exclude", "must_not_leak_into", "links_splits")  # by which a member of the parent may leave
FAR_SHOWN = 24  # candidates that are farthest from any member


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check points at: an asset, the picture that it is told with, and a value by which findings of a kind are ordered."""

    kind: str
    asset_id: str
    other_id: str | None
    value: float | None
    detail: str


@dataclass
class Findings:
    """What was found of a version: its numbers, the samples that they are of, what to point at, and its members with what was computed of each."""

    numbers: dict[str, float] = field(default_factory=dict)
    samples: dict[str, Sample] = field(default_factory=dict)  # by number
    notes: list[str] = field(default_factory=list)
    points: list[Finding] = field(default_factory=list)

    def add(self, kind: str, asset_id: str, detail: str, other_id: str | None = None, value: float | None = None) -> None:
        """Point at an asset."""
        self.points.append(Finding(kind, asset_id, other_id, value, detail))


def check_collection(version: DatasetVersion, ws: Workspace) -> CollectionReport:
    """The report of one version, committed whether it passed or not; the version stays as it is either way.

    A report says what was so when it was made: draws and results depend on the version and on collection.salt alone, the bytes that were read
    again on the day. Raises ConfigError for an expectation that cannot be judged.
    """
    config = ws.config.collection
    key = ws.key(CollectionReport, [config], [version.id])
    if (found := ws.find(CollectionReport, key)) is not None:
        return found
    ws.report(f"check_collection: {version.name}, {version.assets:,} members")
    spec = stored_spec(version.spec)
    table = ws.store.read_table(version)
    assets, candidates = candidates_of(version, ws)
    members = _members(assets, table)
    column = label_column(spec, assets, ws)
    snapshot = load_snapshot(version.snapshot_id, ws)
    sets = embedding_sets(snapshot, ws)
    ids = id_array(members["asset_id"].to_pylist())
    vectors = vectors_for(sets, ids, ws)
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if "vector_norm" in members.column_names:  # a sidecar may have any key
        members = members.drop_columns(["vector_norm"])
    members = members.append_column("vector_norm", pa.array(np.where(np.isfinite(norms), norms, np.nan)))
    sound = np.isfinite(norms) & (norms > 0)

    found_all = Findings({"members": float(len(members)), "candidates": float(version.candidates)})
    found_all.numbers["recall_margin"] = snapshot.recall_lower_bound - snapshot.recall_target
    _copies(spec, table, found_all)
    _held_out(version, spec, table, assets, found_all, ws)
    _against_parent(version, spec, table, found_all, ws)
    _across_splits(table, ids, vectors, sound, found_all, config)
    others = id_array(candidates["asset_id"].to_pylist())
    drawn = others[draw(others, config.neighbour_rows, config.salt)]
    if sound.any():
        _coverage(drawn, len(others), vectors_for(sets, drawn, ws), ids[sound], vectors[sound], found_all)
    read = reread(version, members, vectors, ws)
    _reread(read, found_all)
    labels = label_findings(version, column, members, vectors, ws) if column else None
    if labels is not None:
        _labels(labels, table, found_all, config)

    judgement = _judge(members, found_all, config)
    for name, missed in judgement.missed.items():
        for row in np.flatnonzero(missed):
            found_all.add("expectation", ids[row].decode(), name)
    bound = found_all.numbers["defect_rate_bound"]
    points = pa.Table.from_pylist([{name: getattr(one, name) for name in schemas.FINDINGS.names} for one in found_all.points], schema=schemas.FINDINGS)
    details = {"version": version.id, "numbers": found_all.numbers, "notes": found_all.notes, **judgement.to_dict()}
    html = collection_html(version, table, judgement.outcomes, found_all.numbers, found_all.notes, points, labels, ws)
    files = (
        ws.put_file(CollectionReport, key, "table", table_to_parquet(points), ".parquet", len(points)),
        ws.put_file(CollectionReport, key, "expectations", json.dumps(details, indent=1, allow_nan=False).encode(), ".json"),
        ws.put_file(CollectionReport, key, "report", html.encode(), ".html"),
    )
    return ws.commit(
        CollectionReport(
            id=key, inputs=(version.id,), created_at=ws.clock(), files=files, version_id=version.id, name=version.name, digest=version.digest,
            assets=version.assets, passed=not judgement.failed, failed_expectations=judgement.failed, warnings=judgement.warnings, label=column,
            likely_mislabels=len(labels.doubts) if labels else 0, sampled=read.samples["bytes"].rows, defect_rate_bound=bound,
        )
    )  # fmt: skip


def _members(assets: pa.Table, table: pa.Table) -> pa.Table:
    """The rows of the asset table that are members, in the order of the members table, with their split."""
    place = {asset_id: row for row, asset_id in enumerate(assets["asset_id"].to_pylist())}
    rows = assets.take(pa.array([place[asset_id] for asset_id in table["asset_id"].to_pylist()], pa.int64()))
    return rows if "split" in rows.column_names else rows.append_column("split", table["split"])


def _copies(spec: CollectionSpec, table: pa.Table, found: Findings) -> None:
    ids, splits, groups, components = (table[name].to_pylist() for name in ("asset_id", "split", "group_id", "component_id"))
    found.numbers["leaked_members"] = float(leaked_members(table))
    if found.numbers["leaked_members"]:
        first: dict[str, int] = {}
        for row, component in enumerate(components):
            other = first.setdefault(component, row)
            if splits[other] != splits[row]:
                found.add("leaked", ids[row], f"{splits[row]}; a copy is in {splits[other]}", ids[other])
    if spec.duplicates == "drop":
        found.numbers["copies_within"] = float(len(ids) - len(set(groups)))
        seen: dict[str, str] = {}
        for asset_id, group in zip(ids, groups, strict=True):
            if (kept := seen.setdefault(group, asset_id)) != asset_id:
                found.add("copy", asset_id, "a copy of another member", kept)


def _held_out(version: DatasetVersion, spec: CollectionSpec, table: pa.Table, assets: pa.Table, found: Findings, ws: Workspace) -> None:
    if not spec.must_not_leak_into:
        return
    component = dict(zip(assets["asset_id"].to_pylist(), assets["component_id"].to_pylist(), strict=True))
    theirs = {asset_id: text for text, held_out in kept_out_of(version, ws).items() for asset_id in member_ids(held_out, ws)}
    closed = {component.get(asset_id, asset_id): asset_id for asset_id in theirs}
    before = len(found.points)
    for asset_id, group in zip(table["asset_id"].to_pylist(), table["component_id"].to_pylist(), strict=True):
        if group in closed or asset_id in theirs:
            other = closed.get(group, asset_id)
            found.add("held_out", asset_id, f"it or a copy of it is in {theirs[other]}", other)
    found.numbers["held_out_members"] = float(len(found.points) - before)


def _against_parent(version: DatasetVersion, spec: CollectionSpec, table: pa.Table, found: Findings, ws: Workspace) -> None:
    parent = parent_of(version, ws)
    if parent is None:
        return
    now = dict(zip(table["asset_id"].to_pylist(), table["split"].to_pylist(), strict=True))
    rows = ws.store.read_table(parent, columns=["asset_id", "split"]).to_pylist()
    missing = [row["asset_id"] for row in rows if row["asset_id"] not in now]
    said = _taken_out(version, missing, ws)
    lost = [asset_id for asset_id in missing if asset_id not in said]
    moved = [(row["asset_id"], row["split"]) for row in rows if row["asset_id"] in now and now[row["asset_id"]] != row["split"]]
    found.numbers |= {"lost_from_parent": float(len(lost)), "let_go_from_parent": float(len(said)), "moved_from_parent": float(len(moved))}
    found.numbers["gained_on_parent"] = float(len(now) - len(rows) + len(missing))
    for asset_id in lost:
        found.add("lost_from_parent", asset_id, f"is in {spec.parent}")
    for asset_id, words in said.items():
        found.add("let_go_from_parent", asset_id, words)
    for asset_id, split in moved:
        found.add("moved_from_parent", asset_id, f"was in {split}, is in {now[asset_id]}")


def _taken_out(version: DatasetVersion, missing: list[str], ws: Workspace) -> dict[str, str]:
    """Of members that the version lacks, those that a rule took out which may do so, with its words; none for a version from before decisions were kept."""
    if not missing or not any(ref.role == "decisions" for ref in version.files):
        return {}
    table = ws.store.read_table(version, "decisions")
    rows = table.filter(pc.is_in(table["asset_id"], pa.array(missing, pa.string()))).to_pylist()
    return {row["asset_id"]: sentence(row) for row in rows if row["rule"] in PARENT_RULES}


def _across_splits(
    table: pa.Table, ids: NDArray[np.bytes_], vectors: NDArray[np.float32], sound: NDArray[np.bool_], found: Findings, config: CollectionConfig
) -> None:
    """The nearest member in another split, of members drawn."""
    splits = np.array(table["split"].to_pylist(), object)
    rows = np.flatnonzero(sound)
    if len(set(splits[rows])) < 2:
        return
    asked = rows[draw(ids[rows], config.neighbour_rows, config.salt)]
    close: list[tuple[float, int, int]] = []
    for split in sorted(set(splits[asked])):
        mine, theirs = asked[splits[asked] == split], rows[splits[rows] != split]
        places, distances = exact_knn(vectors[mine], vectors, 1, reference_rows=theirs)
        near = np.flatnonzero(distances[:, 0] <= 1.0 - config.close_cosine)
        close += [(float(distances[row, 0]), int(mine[row]), int(theirs[places[row, 0]])) for row in near]
    found.numbers["close_share"] = len(close) / len(asked)
    found.samples["close_share"] = Sample(len(asked), len(rows), len(close))
    for distance, row, other in sorted(close):
        found.add("close", ids[row].decode(), f"{splits[row]}, like one in {splits[other]}", ids[other].decode(), 1.0 - distance)


def _coverage(
    drawn: NDArray[np.bytes_], candidates: int, theirs: NDArray[np.float32], ids: NDArray[np.bytes_], vectors: NDArray[np.float32], found: Findings
) -> None:
    """How far candidates are from their nearest member. Of a draw the radius is one that few others exceed (Wilks 1941)."""
    sound = np.isfinite(theirs).all(axis=1)
    drawn, theirs = drawn[sound], theirs[sound]
    if not len(drawn):
        return
    rows, distances = exact_knn(theirs, vectors, 1)
    apart = distances[:, 0].astype(np.float64)
    found.numbers |= {"coverage_radius": float(apart.max()), "coverage_p95": float(np.quantile(apart, 0.95)), "coverage_mean": float(apart.mean())}
    found.samples["coverage_radius"] = Sample(len(drawn), candidates, 0)
    for row in np.lexsort((drawn, -apart))[:FAR_SHOWN]:
        if apart[row] > 0:
            found.add("far", drawn[row].decode(), "a candidate, with its nearest member", ids[rows[row, 0]].decode(), float(apart[row]))


def _reread(read: Reread, found: Findings) -> None:
    for name, sample in read.samples.items():
        found.numbers[f"{name}_defects"] = float(sample.defects)
        found.samples[f"{name}_defects"] = sample
        for asset_id, problem in sorted(read.wrong[name].items()):
            found.add(name, asset_id, problem)
    if read.note:
        found.notes.append(read.note)


def _labels(labels: LabelFindings, table: pa.Table, found: Findings, config: CollectionConfig) -> None:
    counts, splits = labels.balance.counts, table["split"].to_pylist()
    ids, components = table["asset_id"].to_pylist(), table["component_id"].to_pylist()
    names = sorted(set(splits))
    held = Counter(zip(labels.labels, splits, strict=True))
    large = [name for name, count in counts.items() if count >= max(config.min_class, 2 * len(names))]
    certain = [leak for leak in labels.leaks if leak.p_value <= 1 - config.confidence + 1e-9]
    contradicted = [row for row, component in enumerate(components) if component in labels.contradicting]
    found.numbers |= {
        "classes": float(len(counts)), "effective_classes": labels.balance.effective, "class_imbalance": labels.balance.imbalance,
        "small_classes": float(sum(count < config.min_class for count in counts.values())),
        "split_gaps": float(sum(not held[name, split] for name in large for split in names)),
        "unlabelled_share": labels.unlabelled / max(len(labels.labels), 1),
        "likely_mislabels": float(len(labels.doubts)), "mislabel_share": len(labels.doubts) / max(labels.sample.rows, 1),
        "contradicting_copies": float(len(contradicted)), "label_leak": max([0.0, *(leak.skill for leak in certain)]),
    }  # fmt: skip
    found.samples["mislabel_share"] = labels.sample
    if labels.planted:
        found.numbers["mislabel_recall"] = labels.recall
        found.notes.append(
            f"Likely mislabels: of {labels.planted:,} labels swapped on purpose {labels.recall:.0%} are told, at least {labels.recall_lower_bound:.0%} at 95 %."
        )
    for doubt in labels.doubts:
        own, other = doubt.votes
        detail = f"{doubt.label}, rather {doubt.proposed}; its neighbours' votes: {own:.0%} and {other:.0%}"
        found.add("mislabel", ids[doubt.row], detail, ids[doubt.witness], doubt.margin)
    for row in contradicted:
        found.add("contradiction", ids[row], f"listed as {' and as '.join(labels.contradicting[components[row]])}")


def _judge(members: pa.Table, found: Findings, config: CollectionConfig) -> Judgement:
    """All expectations, each sampled one with what it says of all members, corrected for how many sampled ones there are."""
    checks = sum(not sample.is_whole for sample in found.samples.values())
    reread_bounds = [
        defect_rate_bound(sample, checks, config.confidence) for name, sample in found.samples.items() if name.endswith("_defects")
    ]
    found.numbers["defect_rate_bound"] = max(reread_bounds)
    own = collection_expectations(found.numbers)
    users = with_users([], users_expectations(config.expectations), [UNIT_VECTOR, *BUILT_IN])
    known = {*members.column_names, *NUMBERS}
    for one in users:
        if not one.condition and one.column not in known:
            raise ConfigError(f"Expectation {one.name}: there is no column or number {one.column!r}. {nearest(one.column, sorted(known))}")
    absent = [one for one in users if not one.condition and one.column in NUMBERS and one.column not in found.numbers]
    on_numbers = [*own, *(one for one in users if not one.condition and one.column in found.numbers)]
    on_rows = [UNIT_VECTOR, *(one for one in users if one not in absent and one not in on_numbers)]
    judgement = judge(members, on_rows, found.numbers, on_numbers, whole="collection")
    statements = {
        one.name: statement(sample, checks, config.confidence, _what(one))
        for one in on_numbers
        if (sample := found.samples.get(one.column)) is not None
    }
    if (sample := found.samples.get("coverage_radius")) is not None:
        beyond = statement(sample, checks, config.confidence, "candidates farther from any member")
        said = f"all {sample.of:,} candidates were looked at" if sample.is_whole else beyond
        found.notes.append(f"Coverage: radius {found.numbers['coverage_radius']:.4g}; {said}.")
    judgement = judgement.with_statements(statements)
    skipped = [Outcome(one, 0, 0, True, "not looked at: the version has no such number, as without labels or a parent") for one in absent]
    return Judgement((*judgement.outcomes, *skipped), judgement.missed, judgement.details)


def _what(one: Expectation) -> str:
    return {"close_share": "share of close members", "mislabel_share": "likely mislabels"}.get(one.column, "defect rate")
