"""Boxes that lists and sidecars bring with a picture, as text of one of the usual forms."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

COLUMNS = ("boxes", "bboxes", "bbox", "box")  # of the asset table, the first that there is


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """A part of an upright picture, in pixels from its upper left corner; label is empty when it has none of its own."""

    x: float
    y: float
    width: float
    height: float
    label: str = ""


def read_boxes(text: str | None) -> tuple[tuple[LabelledBox, ...], int]:
    """Boxes of JSON, [x, y, w, h], a list of such, or a list of objects with `bbox` and perhaps `label`; and how many could not be read.

    A box without width or height is one that could not be read, and so is text that is no JSON.

    >>> read_boxes('[{"bbox": [1, 2, 30, 40], "label": "eye"}, [5, 5, 0, 9]]')
    ((LabelledBox(x=1.0, y=2.0, width=30.0, height=40.0, label='eye'),), 1)
    >>> read_boxes("[1, 2, 30, 40]") == read_boxes("[[1, 2, 30, 40]]"), read_boxes(None), read_boxes("A12")
    (True, ((), 0), ((), 1))
    """
    if text is None or not text.strip():
        return (), 0
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return (), 1
    if not isinstance(found, list) or (found and not isinstance(found[0], list | dict)):
        found = [found]
    boxes = [_box(one) for one in found]
    kept = tuple(box for box in boxes if box is not None)
    return kept, len(boxes) - len(kept)


def _box(one: Any) -> LabelledBox | None:
    try:
        numbers, label = (one["bbox"], one.get("label") or one.get("category") or "") if isinstance(one, dict) else (one, "")
        if not isinstance(numbers, list):
            return None
        x, y, width, height = (float(number) for number in numbers)
    except (ValueError, TypeError, KeyError, OverflowError):
        return None
    if not all(map(math.isfinite, (x, y, width, height))) or width <= 0 or height <= 0:
        return None
    return LabelledBox(x, y, width, height, str(label))
