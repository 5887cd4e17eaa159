"""The members of a version as examples for training: split, label, size and place of each, whatever reads them afterwards."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from discovery.core.boxes import COLUMNS as BOX_COLUMNS
from discovery.core.boxes import parse_boxes
from discovery.core.export_plan import Example, order_examples
from discovery.errors import ConfigError, CorruptArtifact, InvalidInput, nearest
from discovery.spec import CollectionSpec
from discovery.stages.asset_table import assets_of, column_name
from discovery.stages.label_findings import label_column, labels_of
from discovery.stages.versions import find_version, row_of
from discovery.types import DatasetVersion
from discovery.workspace import Workspace


def version_number(version: DatasetVersion, ws: Workspace) -> int:
    """The number that a version has under its name."""
    if (row := row_of(version, ws)) is not None:
        return row.number
    raise CorruptArtifact(f"Version {version.name} with digest {version.digest[:12]}… has no number in the catalog. Run `discovery reindex-catalog`.")


def examples_of(version: DatasetVersion, label: str, ws: Workspace) -> tuple[str, tuple[str, ...], tuple[Example, ...]]:
    """The column that the labels are of (empty: there is none), the splits in the order of the spec, and every member.

    label: a column of the asset table; empty takes the usual one, see stages.label_findings.label_column. Raises ConfigError for one that does not
    exist, CorruptArtifact when the store lost what the version was made from.
    """
    assets = assets_of(version, ws)
    members = ws.store.read_table(version)
    spec = CollectionSpec.model_validate_json(version.spec)
    column = _label(label, spec, assets, ws)
    facts = _facts(assets, set(members["asset_id"].to_pylist()), column)
    examples, lost = [], []
    for row in members.to_pylist():
        told = facts.get(row["asset_id"])
        if told is None:
            lost.append(row["asset_id"])
            continue
        examples.append(
            Example(
                row["asset_id"], row["split"], told["label"], "JPEG" if told["video_id"] else told["format"] or "", told["size_bytes"] or 0, row["width_px"],
                row["height_px"], row["source_uri"], row.get("reason") or "", told["video_id"] is not None, told["boxes"],
            )
        )  # fmt: skip
    if lost:
        raise CorruptArtifact(f"{len(lost)} members of {version.name} are in no manifest of its index, first {lost[0]}. Run `discovery verify`.")
    splits = [split for split in spec.splits if split in version.splits] or list(version.splits)
    splits += sorted({example.split for example in examples} - set(splits))
    return column, tuple(splits), order_examples(examples, splits)


def _label(label: str, spec: CollectionSpec, assets: pa.Table, ws: Workspace) -> str:
    if not label:
        return label_column(spec, assets, ws)
    if column_name(label) not in assets.column_names:
        raise ConfigError(f"--label {label!r}: the asset table has no such column. {nearest(label, assets.column_names)}")
    return column_name(label)


def _facts(assets: pa.Table, wanted: set[str], column: str) -> dict[str, dict[str, Any]]:
    """What the asset table says of the wanted assets."""
    boxes = next((name for name in BOX_COLUMNS if name in assets.column_names and pa.types.is_string(assets[name].type)), "")
    some = assets.filter(pa.array([asset_id in wanted for asset_id in assets["asset_id"].to_pylist()], pa.bool_()))
    labels = [_whole(label) for label in labels_of(some[column])] if column else [None] * len(some)
    rows = some.select(["asset_id", "format", "size_bytes", "video_id", *([boxes] if boxes else [])]).to_pylist()
    found = {}
    for row, label in zip(rows, labels, strict=True):
        try:
            found[row["asset_id"]] = row | {"label": label, "boxes": parse_boxes(row[boxes]) if boxes else ()}
        except InvalidInput as error:
            raise InvalidInput(f"Column {boxes!r} of asset {row['asset_id'][:12]}…: {error}") from error
    return found


def _whole(label: str | None) -> str | None:
    """The 3.0 that the asset table makes of a list's 3 is 3 again."""
    return label.removesuffix(".0") if label is not None and label.removesuffix(".0").lstrip("-").isdigit() else label


def find_numbered(text: str, ws: Workspace) -> tuple[DatasetVersion, int]:
    """A version by any of its names, and its number."""
    version = find_version(text, ws)
    return version, version_number(version, ws)
