"""Folders a split and a label, as torchvision's ImageFolder, timm and Keras read them: SPLIT/LABEL/ASSET_ID.EXT."""

from __future__ import annotations

import json
from collections.abc import Sequence

from discovery.adapters.exports.format import Descriptions, Format, split_folder
from discovery.core.export_plan import Example, ExportPlan, Made, extension, folder_name


def place(example: Example, plan: ExportPlan) -> str:
    """Where a picture goes."""
    return f"{split_folder(example)}/{folder_name(example.label)}/{example.asset_id}{extension(example, plan.options.form)}"


def describe(plan: ExportPlan, made: Sequence[Made]) -> Descriptions:
    """classes.json: the label of each folder, since a folder cannot be named by every label, in the order of their numbers, unlabelled last."""
    labels: list[str | None] = [*plan.classes, *([None] if any(example.label is None for example in plan.examples) else [])]
    yield "classes.json", json.dumps({folder_name(label): label for label in labels}, indent=1, ensure_ascii=False).encode()


LEFT_OUT = "torchvision's ImageFolder leaves them out"
IMAGEFOLDER = Format(
    "imagefolder", "SPLIT/LABEL/ASSET_ID.EXT", describe, lambda plan: ("classes.json",), place, classes_are_folders=True,
    unread=dict.fromkeys(("HEIC", "AVIF", "GIF", "RAW"), LEFT_OUT),
)  # fmt: skip
