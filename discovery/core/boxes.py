"""Boxes that lists and sidecars bring with a picture, as text of one of the usual forms."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from discovery.errors import InvalidInput

COLUMNS = ("boxes", "bboxes", "bbox", "box")  # of the asset table, the first that there is


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """A part of an upright picture, in pixels from its upper left corner; label is empty when it has none of its own."""

    x: float
    y: float
    width: float
    height: float
    label: str = ""


def parse_boxes(text: str | None) -> tuple[LabelledBox, ...]:
    """Boxes of JSON: [x, y, w, h], a list of such, or a list of objects with `bbox` and perhaps `label`. Raises InvalidInput for anything else.

    >>> parse_boxes('[{"bbox": [1, 2, 30, 40], "label": "eye"}]')
    (LabelledBox(x=1.0, y=2.0, width=30.0, height=40.0, label='eye'),)
    >>> parse_boxes("[1, 2, 30, 40]") == parse_boxes("[[1, 2, 30, 40]]"), parse_boxes(None)
    (True, ())
    """
    if text is None or not text.strip():
        return ()
    try:
        found = json.loads(text)
        if isinstance(found, dict) or (found and not isinstance(found[0], list | dict)):
            found = [found]
        return tuple(_box(one) for one in found)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidInput(f"Boxes {text[:80]!r} are not of the form [x, y, w, h], a list of these, or a list of {{bbox, label}}, in pixels: {error}.") from error


def _box(one: Any) -> LabelledBox:
    numbers, label = (one["bbox"], one.get("label") or one.get("category") or "") if isinstance(one, dict) else (one, "")
    x, y, width, height = (float(number) for number in numbers)
    if not all(map(math.isfinite, (x, y, width, height))) or width <= 0 or height <= 0:
        raise ValueError("a box has a width and a height above 0")
    return LabelledBox(x, y, width, height, str(label))
