"""FiftyOne's FiftyOneImageClassificationDataset, one a split: SPLIT/data/ASSET_ID.EXT and SPLIT/labels.json."""

from __future__ import annotations

import json
from collections.abc import Sequence

from discovery.adapters.exports.format import Descriptions, Format, split_folder
from discovery.core.export_plan import Example, ExportPlan, Made, extension, folder_name


def place(example: Example, plan: ExportPlan) -> str:
    """Where a picture goes."""
    return f"{split_folder(example)}/data/{example.asset_id}{extension(example, plan.options.form)}"


def names(plan: ExportPlan) -> list[str]:
    """The labels of each split."""
    return [f"{folder_name(split)}/labels.json" for split in plan.splits]


def describe(plan: ExportPlan, made: Sequence[Made]) -> Descriptions:
    """The classes, and the number of each picture's; null for pictures without, which the importer then takes too."""
    for split, path in zip(plan.splits, names(plan), strict=True):
        labels = {plan.examples[at].asset_id: None if plan.examples[at].label is None else plan.class_of(plan.examples[at]) for at in plan.of_split(split)}
        yield path, json.dumps({"classes": list(plan.classes), "labels": labels}, ensure_ascii=False, indent=1).encode()


CANNOT = "browsers, in which FiftyOne shows them, do not open them"
FIFTYONE = Format(
    "fiftyone", "SPLIT/data/ASSET_ID.EXT and SPLIT/labels.json", describe, names, place, unread=dict.fromkeys(("HEIC", "TIFF", "RAW"), CANNOT)
)
