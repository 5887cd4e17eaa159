"""The members of a version as examples for training: split, label, size and place of each, whatever reads them afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from discovery.core.boxes import COLUMNS as BOX_COLUMNS
from discovery.core.boxes import LabelledBox, read_boxes
from discovery.core.export_plan import Example, order_examples
from discovery.errors import ConfigError, CorruptArtifact, nearest
from discovery.spec import CollectionSpec, column_name, stored_spec
from discovery.stages.asset_table import assets_of
from discovery.stages.label_findings import label_column, labels_of
from discovery.stages.versions import find_version, row_of
from discovery.types import DatasetVersion
from discovery.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Members:
    """label_column: empty when there is none. splits: in the order of the spec. examples: every member. notes: what their readers must know."""

    label_column: str
    splits: tuple[str, ...]
    examples: tuple[Example, ...]
    notes: tuple[str, ...]


def version_number(version: DatasetVersion, ws: Workspace) -> int:
    """The number that a version has under its name."""
    if (row := row_of(version, ws)) is not None:
        return row.number
    raise CorruptArtifact(f"Version {version.name} with digest {version.digest[:12]}… has no number in the catalog. Run `discovery reindex-catalog`.")


def members_of(version: DatasetVersion, label: str, ws: Workspace, *, with_boxes: bool = False) -> Members:
    """Every member of a version, as an example.

    label: a column of the asset table; empty takes the usual one, see stages.label_findings.label_column. with_boxes: read those that lists brought,
    too. Raises ConfigError for a column that does not exist, CorruptArtifact when the store lost what the version was made from.
    """
    assets = assets_of(version, ws)
    members = ws.store.read_table(version)
    spec = stored_spec(version.spec)
    column = _label(label, spec, assets, ws)
    wanted = set(members["asset_id"].to_pylist())
    assets = assets.filter(pa.array([asset_id in wanted for asset_id in assets["asset_id"].to_pylist()], pa.bool_()))
    boxes, notes = _boxes(assets) if with_boxes else ({}, ())
    facts = _facts(assets, column)
    examples, lost = [], []
    for row in members.to_pylist():
        told = facts.get(row["asset_id"])
        if told is None:
            lost.append(row["asset_id"])
            continue
        examples.append(
            Example(
                row["asset_id"], row["split"], told["label"], "JPEG" if told["video_id"] else told["format"] or "", told["size_bytes"] or 0, row["width_px"],
                row["height_px"], row["source_uri"], row.get("reason") or "", told["video_id"] is not None,
                boxes.get(row["asset_id"], ()),
            )
        )  # fmt: skip
    if lost:
        raise CorruptArtifact(f"{len(lost)} members of {version.name} are in no manifest of its index, first {lost[0]}. Run `discovery verify`.")
    splits = [split for split in spec.splits if split in version.splits] or list(version.splits)
    splits += sorted({example.split for example in examples} - set(splits))
    return Members(column, tuple(splits), order_examples(examples, splits), notes)


def _label(label: str, spec: CollectionSpec, assets: pa.Table, ws: Workspace) -> str:
    if not label:
        return label_column(spec, assets, ws)
    if column_name(label) not in assets.column_names:
        raise ConfigError(f"--label {label!r}: the asset table has no such column. {nearest(label, assets.column_names)}")
    return column_name(label)


def _facts(assets: pa.Table, column: str) -> dict[str, dict[str, Any]]:
    """What the asset table says of each asset."""
    labels = labels_of(assets[column]) if column else [None] * len(assets)
    rows = assets.select(["asset_id", "format", "size_bytes", "video_id"]).to_pylist()
    return {row["asset_id"]: row | {"label": label} for row, label in zip(rows, labels, strict=True)}


def _boxes(assets: pa.Table) -> tuple[dict[str, tuple[LabelledBox, ...]], tuple[str, ...]]:
    """The boxes of each asset, of the first column of boxes in which one can be read; and a word on what cannot."""
    ids, notes = assets["asset_id"].to_pylist(), []
    for column in (name for name in BOX_COLUMNS if name in assets.column_names and pa.types.is_string(assets[name].type)):
        texts = assets[column].to_pylist()
        read = [read_boxes(text) for text in texts]
        unread = sum(count for _, count in read)
        if unread:
            place = next(place for place, (_, count) in enumerate(read) if count)
            example = f"such as {texts[place][:80]!r} of {ids[place][:12]}…; a box is [x, y, width, height] in pixels, larger than nothing"
            has_any = any(found for found, _ in read)
            notes.append(
                f"{unread} boxes of the column {column!r} cannot be read and are left out, {example}." if has_any
                else f"The column {column!r} holds no box that can be read, and is passed over, {example}."
            )  # fmt: skip
        if any(found for found, _ in read):
            return {asset_id: found for asset_id, (found, _) in zip(ids, read, strict=True) if found}, tuple(notes)
    return {}, tuple(notes)


def find_numbered(text: str, ws: Workspace) -> tuple[DatasetVersion, int]:
    """A version by any of its names, and its number."""
    version = find_version(text, ws)
    return version, version_number(version, ws)
