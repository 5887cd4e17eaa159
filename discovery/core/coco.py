"""The COCO instances dictionary of one split: images, categories, annotations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from discovery.core.export_plan import Example, ExportPlan

OBJECT = "object"  # category of boxes that have no label, on pictures that have none


def coco_instances(plan: ExportPlan, split: str, path_of: Callable[[Example], str]) -> dict[str, Any]:
    """What `pycocotools.coco.COCO` reads. Ids are unique over all splits of the plan.

    A labelled picture has one annotation of its label, marked `image_level`, whose box is the whole picture; it says nothing of where. Boxes that lists or
    sidecars brought come after it, marked false. A picture without a label and without boxes has no annotation. Sizes are those of the upright picture.
    """
    names = sorted({*plan.classes, *(_category(example, box.label) for example in plan.examples for box in example.boxes)})
    number = {name: place for place, name in enumerate(names, start=1)}
    images, annotations = [], []
    next_annotation = 1
    for image_id, example in enumerate(plan.examples, start=1):
        found: list[tuple[str, tuple[float, float, float, float], bool]] = []
        if example.label is not None:
            found.append((example.label, (0.0, 0.0, float(example.width_px), float(example.height_px)), True))
        found += [(_category(example, box.label), (box.x, box.y, box.width, box.height), False) for box in example.boxes]
        if example.split == split:
            images.append(
                {
                    "id": image_id, "file_name": PurePosixPath(path_of(example)).name, "width": example.width_px, "height": example.height_px,
                    "license": 0, "date_captured": "", "asset_id": example.asset_id,
                }
            )  # fmt: skip
            for place, (name, (x, y, width, height), is_whole) in enumerate(found):
                annotations.append(
                    {
                        "id": next_annotation + place, "image_id": image_id, "category_id": number[name], "bbox": [x, y, width, height],
                        "area": width * height, "iscrowd": 0, "segmentation": [[x, y, x + width, y, x + width, y + height, x, y + height]],
                        "image_level": is_whole,
                    }
                )  # fmt: skip
        next_annotation += len(found)
    about = "Boxes of annotations with image_level true are the whole picture: its label, not a place in it."
    return {
        "info": {"description": f"{plan.version}, split {split}. {about}", "version": plan.digest, "date_created": plan.created_at},
        "licenses": [{"id": 0, "name": "not stated", "url": ""}],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number[name], "name": name, "supercategory": ""} for name in names],
    }


def _category(example: Example, label: str) -> str:
    return label or example.label or OBJECT
