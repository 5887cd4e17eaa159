"""Camera files made from scratch: a DNG with a Bayer mosaic, and EXIF as cameras write it."""

from __future__ import annotations

import io
from datetime import datetime
from fractions import Fraction

import numpy as np
import tifffile
from PIL import Image, TiffImagePlugin

RGGB = ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2))
Rational = TiffImagePlugin.IFDRational


def quarters(height: int, width: int) -> np.ndarray:
    """(h, w, 3) uint8: red, green, blue and grey quarters."""
    pixels = np.zeros((height, width, 3), np.uint8)
    h, w = height // 2, width // 2
    pixels[:h, :w], pixels[:h, w:], pixels[h:, :w], pixels[h:, w:] = (200, 0, 0), (0, 200, 0), (0, 0, 200), (99, 99, 99)
    return pixels


def dng(height: int = 200, width: int = 300, orientation: int = 1, taken: str = "2026:05:01 12:00:00") -> bytes:
    """A whole DNG of `quarters`, as LibRaw and Adobe's specification have it."""
    pixels = quarters(height, width).astype(np.uint16) * 257
    mosaic = np.zeros((height, width), np.uint16)
    for row, column, channel in RGGB:
        mosaic[row::2, column::2] = pixels[row::2, column::2, channel]
    one = (1, 1)
    tags = [
        (271, "s", 0, "Maker"), (272, "s", 0, "Camera 1"), (274, "H", 1, orientation), (306, "s", 0, taken),
        (33421, "H", 2, (2, 2)), (33422, "B", 4, (0, 1, 1, 2)),
        (50706, "B", 4, (1, 4, 0, 0)), (50707, "B", 4, (1, 1, 0, 0)), (50708, "s", 0, "Maker Camera 1"), (50717, "I", 1, 65535),
        (50721, "2i", 9, (*one, 0, 1, 0, 1, 0, 1, *one, 0, 1, 0, 1, 0, 1, *one)), (50728, "2I", 3, one * 3), (50778, "H", 1, 21),
    ]  # fmt: skip
    sink = io.BytesIO()
    tifffile.imwrite(sink, mosaic, photometric="CFA", extratags=tags, metadata=None)
    return sink.getvalue()


def exif(taken: datetime, *, camera: str = "Camera 1", offset: str | None = None, place: tuple[float, float] | None = None) -> Image.Exif:
    """What a camera writes beside a picture."""
    tags = Image.Exif()
    tags[0x010F], tags[0x0110] = "Maker", camera
    inner = tags.get_ifd(0x8769)
    inner[0x9003] = taken.strftime("%Y:%m:%d %H:%M:%S")
    inner[0x9291] = f"{taken.microsecond // 1000:03}"
    inner[0x829A], inner[0x829D], inner[0x8827] = Rational(1, 250), Rational(28, 10), 400
    inner[0x920A], inner[0xA434], inner[0x9209] = Rational(50, 1), "50mm F1.8", 1
    if offset:
        inner[0x9011] = offset
    if place:
        gps = tags.get_ifd(0x8825)
        latitude, longitude = place
        gps[1], gps[2] = "N" if latitude >= 0 else "S", _sexagesimal(latitude)
        gps[3], gps[4] = "E" if longitude >= 0 else "W", _sexagesimal(longitude)
        gps[5], gps[6] = b"\x01", Rational(12, 1)
    return tags


def _sexagesimal(degrees: float) -> tuple[Rational, Rational, Rational]:
    whole, rest = divmod(Fraction(abs(degrees)), 1)
    minutes, rest = divmod(rest * 60, 1)
    return Rational(whole, 1), Rational(int(minutes), 1), Rational(round(rest * 60 * 10_000), 10_000)


def photo(kind: str = "JPEG", seed: int = 0, tags: Image.Exif | None = None, size: tuple[int, int] = (120, 80), **options: object) -> bytes:
    """A small texture of its own for each seed."""
    coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8))
    sink = io.BytesIO()
    if tags is not None:
        options["exif"] = tags.tobytes()
    coarse.resize(size, Image.Resampling.BICUBIC).save(sink, kind, **options)
    return sink.getvalue()
