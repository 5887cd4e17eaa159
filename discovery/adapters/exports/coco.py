"""COCO: SPLIT/ASSET_ID.EXT and annotations/instances_SPLIT.json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from discovery.adapters.exports.format import Format, split_folder
from discovery.core.coco import coco_instances
from discovery.core.export_plan import Example, ExportPlan, Made, extension, folder_name


def place(example: Example, plan: ExportPlan) -> str:
    """Where a picture goes."""
    return f"{split_folder(example)}/{example.asset_id}{extension(example, plan.options.form)}"


def describe(plan: ExportPlan, made: Sequence[Made]) -> Iterator[tuple[str, bytes]]:
    """The annotations of each split."""
    for split in plan.splits:
        told = coco_instances(plan, split, lambda example: place(example, plan))
        yield f"annotations/instances_{folder_name(split)}.json", json.dumps(told).encode()


CANNOT = "Pillow and OpenCV do not open them without a plug-in"
COCO = Format("coco", "SPLIT/ASSET_ID.EXT and annotations/instances_SPLIT.json", describe, place, unread=dict.fromkeys(("HEIC", "RAW"), CANNOT))
