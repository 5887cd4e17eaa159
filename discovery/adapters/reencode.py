"""A picture's bytes in a form that every reader opens: upright JPEG or PNG."""

from __future__ import annotations

import io

from PIL import Image

from discovery.adapters.decode import FORMATS, decode
from discovery.core.export_plan import Form

QUALITY = 95  # with full colour resolution; what a training set loses by it is below what augmentation changes
ORIENTATION_TAG = 0x0112
PNG_DEPTH_BYTE = 24  # signature, then the header chunk: length, name, width, height, bits a channel


def reencode(data: bytes, form: Form) -> bytes:
    """The bytes themselves when they are of that form, single, upright, opaque and 8 bits of RGB already; else the picture decoded, turned upright, on white, and written anew.

    The colour profile stays where it is one of RGB; all other metadata goes. Raises Undecodable.
    """
    if form == "original" or _is_already(data, form):
        return data
    image = decode(data, max_pixels=2**62).image
    profile = image.info.get("icc_profile") or b""
    sink = io.BytesIO()
    kept = {"icc_profile": profile} if profile[16:20] == b"RGB " else {}
    clean = Image.frombytes("RGB", image.size, image.tobytes())  # without what the decoder noted of the file
    if form == "jpeg":
        clean.save(sink, "JPEG", quality=QUALITY, subsampling="4:4:4", **kept)
    else:
        clean.save(sink, "PNG", **kept)
    return sink.getvalue()


def _is_already(data: bytes, form: Form) -> bool:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            is_plain = image.format == form.upper() and image.mode == "RGB" and "transparency" not in image.info and getattr(image, "n_frames", 1) == 1
            is_8_bit = form != "png" or data[PNG_DEPTH_BYTE] == 8  # Pillow calls 16 bits of RGB by the same name
            return is_plain and is_8_bit and image.getexif().get(ORIENTATION_TAG, 1) == 1
    except Exception:  # decoding it will say what is wrong
        return False
