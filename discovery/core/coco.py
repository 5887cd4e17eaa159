"""The COCO instances of one split, written picture by picture: images, categories, annotations."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

from discovery.core.export_plan import Example, ExportPlan

OBJECT = "object"  # category of boxes that have no label, on pictures that have none
ABOUT = "Boxes of annotations with image_level true are the whole picture: its label, not a place in it."


def coco_instances(plan: ExportPlan, split: str, path_of: Callable[[Example], str]) -> Iterator[str]:
    """What `pycocotools.coco.COCO` reads, as JSON in parts, since all annotations at once may take gigabytes. Ids are unique over all splits of the plan.

    A labelled picture has one annotation of its label, marked `image_level`, whose box is the whole picture; it says nothing of where. Boxes that lists or
    sidecars brought come after it, marked false. A picture without a label and without boxes has no annotation. Sizes are those of the upright picture.
    """
    names = sorted({*plan.classes, *(_category(example, box.label) for example in plan.examples for box in example.boxes)})
    number = {name: place for place, name in enumerate(names, start=1)}
    info = {"description": f"{plan.version}, split {split}. {ABOUT}", "version": plan.digest, "date_created": plan.created_at}
    licence = {"id": 0, "name": plan.options.license_url or "not stated", "url": plan.options.license_url}
    yield f'{{"info": {json.dumps(info)}, "licenses": {json.dumps([licence])}, "images": ['
    places = plan.of_split(split)
    yield from _listed(_image(place + 1, plan.examples[place], path_of) for place in places)
    yield '], "annotations": ['
    before = sum(len(_boxes(example)) for example in plan.examples[: places.start])
    yield from _listed(_annotations(plan, places, number, before + 1))
    yield f'], "categories": {json.dumps([{"id": number[name], "name": name, "supercategory": ""} for name in names])}}}'


def _listed(values: Iterable[dict[str, Any]]) -> Iterator[str]:
    for place, value in enumerate(values):
        yield f"{', ' if place else ''}{json.dumps(value)}"


def _image(image_id: int, example: Example, path_of: Callable[[Example], str]) -> dict[str, Any]:
    return {
        "id": image_id, "file_name": PurePosixPath(path_of(example)).name, "width": example.width_px, "height": example.height_px,
        "license": 0, "date_captured": "", "asset_id": example.asset_id,
    }  # fmt: skip


def _annotations(plan: ExportPlan, places: range, number: dict[str, int], first: int) -> Iterator[dict[str, Any]]:
    found = ((place + 1, box) for place in places for box in _boxes(plan.examples[place]))
    for annotation_id, (image_id, (name, (x, y, width, height), is_whole)) in enumerate(found, start=first):
        yield {
            "id": annotation_id, "image_id": image_id, "category_id": number[name], "bbox": [x, y, width, height],
            "area": width * height, "iscrowd": 0, "segmentation": [[x, y, x + width, y, x + width, y + height, x, y + height]],
            "image_level": is_whole,
        }  # fmt: skip


def _boxes(example: Example) -> list[tuple[str, tuple[float, float, float, float], bool]]:
    """Category, box, and whether it is the whole picture."""
    whole = [] if example.label is None else [(example.label, (0.0, 0.0, float(example.width_px), float(example.height_px)), True)]
    return [*whole, *((_category(example, box.label), (box.x, box.y, box.width, box.height), False) for box in example.boxes)]


def _category(example: Example, label: str) -> str:
    return label or example.label or OBJECT
