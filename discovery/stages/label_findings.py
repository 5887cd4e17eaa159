"""What the labels of a version's members look like: likely mislabels, copies that contradict one another, balance, and what gives them away."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discovery.addressing import sha256_hex
from discovery.core.draws import draw, id_array
from discovery.core.knn import exact_knn
from discovery.core.labels import (
    ClassBalance,
    LabelDoubt,
    Leak,
    class_balance,
    contradictions,
    doubtful_labels,
    label_leaks,
    label_votes,
)
from discovery.core.samples import Sample
from discovery.core.splits import merge_groups
from discovery.errors import ConfigError, CorruptArtifact, nearest
from discovery.spec import CollectionSpec, column_name, value_text
from discovery.stages.history import load_snapshot
from discovery.types import DatasetVersion, DuplicateReport, Manifest
from discovery.workspace import Workspace

TOGETHER = ("component_id", "capture", "burst", "video_id")  # what shares one of these says the same thing twice
# What a model may learn instead of the subject. Names and folders are left out: a model sees pixels, and a folder tells its label by design.
NUISANCES = (
    "format", "width_px", "height_px", "orientation", "camera_make", "camera_model", "lens_model", "color_profile", "flash_fired", "blockiness",
    "border", "noise",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Doubt:
    """A member of which another label is expected, by `margin`. votes: of its neighbours, for its own label and for the other; witness: its nearest one with the other."""

    row: int
    label: str
    proposed: str
    margin: float
    votes: tuple[float, float]
    witness: int


@dataclass(frozen=True, slots=True)
class LabelFindings:
    """labels: of each member, None where it has none. sample: how many labelled members were looked at, and how many are in doubt.

    recall: share of labels swapped on purpose (`planted` of them) that is told, over recall_lower_bound with a confidence of 95 %.
    """

    column: str
    labels: list[str | None]
    balance: ClassBalance
    sample: Sample
    doubts: list[Doubt]
    planted: int
    recall: float
    recall_lower_bound: float
    contradicting: dict[str, tuple[str, ...]]
    leaks: list[Leak]

    @property
    def unlabelled(self) -> int:
        """Members without a label."""
        return sum(label is None for label in self.labels)


def label_column(spec: CollectionSpec, assets: pa.Table, ws: Workspace) -> str:
    """The column that holds the labels; empty when there is none. Raises ConfigError for a configured one that does not exist."""
    names = assets.column_names
    if wanted := ws.config.collection.label:
        if column_name(wanted) not in names:
            raise ConfigError(f"collection.label = {wanted!r}: there is no such column. {nearest(wanted, names)}")
        return column_name(wanted)
    if "label" in names:
        return "label"
    by = column_name(spec.quotas[0].by) if spec.quotas else ""
    return by if by in names and pa.types.is_string(assets[by].type) else ""


def labels_of(column: pa.ChunkedArray) -> list[str | None]:
    """Each value as text, as exports and quotas have it; None for null and for empty text."""
    return [value_text(value) or None for value in column.to_pylist()]


def label_findings(version: DatasetVersion, column: str, members: pa.Table, vectors: NDArray[np.float32], ws: Workspace) -> LabelFindings:
    """Look at the labels of all members.

    members: rows of the asset table, with the column. vectors: (n, d) theirs; rows that are not finite are left out. Of copies, bursts, captures and the
    frames of a video one speaks for all, and none of them for another of them.
    """
    config = ws.config.collection
    labels = labels_of(members[column])
    ids = members["asset_id"].to_pylist()
    labelled = [row for row, label in enumerate(labels) if label is not None and np.isfinite(vectors[row]).all()]
    asked = draw(id_array([ids[row] for row in labelled]), config.neighbour_rows, config.salt)
    known = sorted(labelled[place] for place in asked)
    names = sorted({str(labels[row]) for row in known})
    code = {name: number for number, name in enumerate(names)}
    codes = np.array([code[str(labels[row])] for row in known], np.int64)
    groups = np.array(merge_groups(*_together(members, ids)), np.int64)[known]
    rng = np.random.default_rng(int(sha256_hex(config.salt.encode())[:16], 16))
    found = doubtful_labels(vectors[known], codes, groups, rng)
    doubts = _doubts(found, known, codes, groups, names, vectors[known], config.label_neighbours)
    sample = Sample(len(known), len(labelled), len(doubts))
    leaks = label_leaks(codes, _nuisances(members, known), groups, rng)
    balance = class_balance([label for label in labels if label is not None])
    return LabelFindings(
        column, labels, balance, sample, doubts, found.planted, found.recall, found.recall_lower_bound,
        _contradicting(version, column, members, ws), leaks,
    )  # fmt: skip


def _doubts(
    found: LabelDoubt, known: list[int], codes: NDArray[np.int64], groups: NDArray[np.int64], names: list[str], vectors: NDArray[np.float32], k: int
) -> list[Doubt]:
    """Each with what its neighbours say, of which a group has one."""
    if not len(found.rows):
        return []
    speakers = np.unique(groups, return_index=True)[1]
    rows, distances = exact_knn(
        vectors[found.rows], vectors[speakers], k, query_ids=[str(group) for group in groups[found.rows]],
        reference_ids=[str(group) for group in groups[speakers]],
    )  # fmt: skip
    votes = label_votes(codes[speakers][rows], distances, len(names))
    doubts = []
    for place, (row, margin, proposed) in enumerate(zip(found.rows.tolist(), found.margins.tolist(), found.proposed.tolist(), strict=True)):
        others = speakers[(codes[speakers] == proposed) & (groups[speakers] != groups[row])]
        witness = int(others[int(np.argmax(vectors[others] @ vectors[row]))]) if len(others) else row
        said = (float(votes[place, codes[row]]), float(votes[place, proposed]))
        doubts.append(Doubt(known[row], names[codes[row]], names[proposed], margin, said, known[witness]))
    return doubts


def _together(members: pa.Table, ids: list[str]) -> list[list[str]]:
    columns = [members[name].to_pylist() for name in TOGETHER if name in members.column_names]
    return [ids, *([one if value is None else str(value) for one, value in zip(ids, values, strict=True)] for values in columns)]


def _nuisances(members: pa.Table, known: list[int]) -> Mapping[str, NDArray[np.float64]]:
    """Numbers as they are, text as codes, columns of one value left out."""
    some = members.take(pa.array(known, pa.int64()))
    columns: dict[str, NDArray[np.float64]] = {}
    for name in (name for name in NUISANCES if name in some.column_names):
        values = some[name].to_pylist()
        if isinstance(next((value for value in values if value is not None), None), str):
            order = {value: float(number) for number, value in enumerate(sorted({value for value in values if value is not None}))}
            values = [None if value is None else order[value] for value in values]
        columns[name] = np.array([np.nan if value is None else value for value in values], np.float64)
    pixels = columns["width_px"] * columns["height_px"]
    columns["aspect"] = columns["width_px"] / np.maximum(columns["height_px"], 1)
    columns["bytes_per_pixel"] = np.array(some["size_bytes"].to_pylist(), np.float64) / np.maximum(pixels, 1)
    return {name: values for name, values in columns.items() if len(np.unique(values)) > 1}


def _contradicting(version: DatasetVersion, column: str, members: pa.Table, ws: Workspace) -> dict[str, tuple[str, ...]]:
    """Components of members that carry several labels, over every listing of the same bytes or of a copy, also those that are no members."""
    wanted = set(members["component_id"].to_pylist())
    snapshot = load_snapshot(version.snapshot_id, ws)
    component = dict(zip(*_component_columns(snapshot.duplicates_id, ws), strict=True))
    groups: list[str] = []
    labels: list[str] = []
    for manifest_id in snapshot.manifests:
        manifest = ws.store.load_record(Manifest, manifest_id)
        if manifest is None:
            raise CorruptArtifact(f"Manifest {manifest_id} is missing. Run `discovery verify`.")
        listed = ws.store.read_table(manifest, columns=["asset_id", "folder", "attributes"])
        for asset_id, folder, attributes in zip(*(listed[name].to_pylist() for name in listed.column_names), strict=True):
            group = component.get(asset_id)
            if group in wanted and (label := _listed_label(column, folder, attributes)):
                groups.append(str(group))
                labels.append(label)
    return contradictions(groups, labels)


def _component_columns(duplicates_id: str, ws: Workspace) -> tuple[list[str], list[str]]:
    report = ws.store.load_record(DuplicateReport, duplicates_id)
    if report is None:
        raise CorruptArtifact(f"Duplicate report {duplicates_id} is missing. Run `discovery verify`.")
    table = ws.store.read_table(report, columns=["asset_id", "component_id"])
    return table["asset_id"].to_pylist(), table["component_id"].to_pylist()


def _listed_label(column: str, folder: str | None, attributes: str | None) -> str:
    """The label that one listing gives, empty for none: only lists, sidecars and folders can differ between listings of the same bytes."""
    if column in ("category", "folder"):
        return folder or ""
    for name, value in (json.loads(attributes) if attributes else {}).items():
        if column_name(name) == column and value not in (None, ""):
            return str(value)
    return ""
