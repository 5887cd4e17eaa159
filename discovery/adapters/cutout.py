"""A picture that was cut out along a line, such as a round detail on nothing: the part of it that is picture all over."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

OPAQUE = 128  # of 255
STEPS = 40  # sizes that are tried, from the whole down to a third of its sides


def opaque_part(data: bytes) -> bytes:
    """PNG bytes of the largest rectangle about the middle of what is opaque that has nothing transparent in it, with its proportions.

    The bytes as they are: of a picture without transparency, of one that is not read here, and where no rectangle above a third of the sides is
    opaque. Elsewhere what is transparent counts as white, which for a query would be a part of what is looked for.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if "A" not in image.getbands() and "transparency" not in image.info:
                return data
            rgba = image.convert("RGBA")
    except Exception:  # decoders fail in many ways; `decode` says of these bytes what is wrong
        return data
    mask = np.asarray(rgba)[:, :, 3] >= OPAQUE
    if mask.all() or not mask.any():
        return data
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    for step in range(STEPS):
        cut = step / STEPS / 3  # of each side, at both ends
        y, x = int(np.ceil((bottom - top) * cut)), int(np.ceil((right - left) * cut))
        inner = mask[top + y : bottom - y, left + x : right - x]
        if inner.size and inner.all():
            sink = io.BytesIO()
            rgba.crop((int(left + x), int(top + y), int(right - x), int(bottom - y))).convert("RGB").save(sink, "PNG", compress_level=0)
            return sink.getvalue()
    return data
