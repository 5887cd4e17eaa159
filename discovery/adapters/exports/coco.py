"""COCO: SPLIT/ASSET_ID.EXT and annotations/instances_SPLIT.json."""

from __future__ import annotations

from collections.abc import Sequence

from discovery.adapters.exports.format import Descriptions, Format, split_folder
from discovery.core.coco import coco_instances
from discovery.core.export_plan import Example, ExportPlan, Made, extension, folder_name


def place(example: Example, plan: ExportPlan) -> str:
    """Where a picture goes."""
    return f"{split_folder(example)}/{example.asset_id}{extension(example, plan.options.form)}"


def names(plan: ExportPlan) -> list[str]:
    """The annotations of each split."""
    return [f"annotations/instances_{folder_name(split)}.json" for split in plan.splits]


def describe(plan: ExportPlan, made: Sequence[Made]) -> Descriptions:
    """The annotations of each split, picture by picture."""
    for split, path in zip(plan.splits, names(plan), strict=True):
        yield path, (part.encode() for part in coco_instances(plan, split, lambda example: place(example, plan)))


CANNOT = "Pillow and OpenCV do not open them without a plug-in"
COCO = Format(
    "coco", "SPLIT/ASSET_ID.EXT and annotations/instances_SPLIT.json", describe, names, place, has_boxes=True,
    unread=dict.fromkeys(("HEIC", "RAW"), CANNOT),
)  # fmt: skip
