"""Planted copies: the edits that people and programs do to pictures, each a function of one picture; truth for calibration."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

PLANTED_PX = 1600  # longer side at which pictures are edited

Edit = Callable[[Image.Image, np.random.Generator], Image.Image]

TRANSPOSE = Image.Transpose
COLOURS = ((0, 0, 0), (255, 255, 255), (128, 128, 128), (200, 30, 30), (20, 60, 160))
WORDS = ("SAMPLE", "Holiday 2024", "copyright", "DRAFT", "happy birthday", "no. 1234", "breaking news", "SALE")


def resized(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A third as wide and high."""
    return image.resize((max(1, round(image.width / 3)), max(1, round(image.height / 3))), Image.Resampling.LANCZOS)


def recompressed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Through JPEG of quality 30."""
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=30)
    with Image.open(sink) as decoded:
        return decoded.convert("RGB")


def cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Half of the area: the same shape, anywhere in the picture."""
    width, height = round(image.width * 0.5**0.5), round(image.height * 0.5**0.5)
    left, top = int(rng.integers(0, image.width - width + 1)), int(rng.integers(0, image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


def bordered(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A border in one colour, as wide on all sides: a tenth of the mean side."""
    return ImageOps.expand(image, max(1, round((image.width + image.height) / 20)), COLOURS[int(rng.integers(len(COLOURS)))])


def blurred(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A Gaussian blur whose standard deviation is 1 % of the longer side."""
    return image.filter(ImageFilter.GaussianBlur(max(image.size) / 100))


def grey(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Without colour."""
    return image.convert("L").convert("RGB")


def gamma(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Brighter or darker tones: gamma 0.6 or 1.6."""
    power = (0.6, 1.6)[int(rng.integers(2))]
    return image.point([round(255 * (value / 255) ** power) for value in range(256)] * 3)


def mirrored(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Left and right exchanged."""
    return image.transpose(TRANSPOSE.FLIP_LEFT_RIGHT)


def turned(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A quarter turn to the left or the right."""
    return image.transpose((TRANSPOSE.ROTATE_90, TRANSPOSE.ROTATE_270)[int(rng.integers(2))])


def captioned(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Words across up to three fifths of the width, somewhere, white with a dark edge."""
    copy = image.copy()
    draw = ImageDraw.Draw(copy)
    text = WORDS[int(rng.integers(len(WORDS)))]
    unit = draw.textlength(text, font=ImageFont.load_default(100)) / 100
    size = max(6.0, min(0.6 * image.width / unit, 0.14 * image.height))
    font = ImageFont.load_default(size)
    width, height = draw.textlength(text, font=font), size * 1.2
    left, top = rng.uniform(0, max(1.0, image.width - width)), rng.uniform(0, max(1.0, image.height - height))
    draw.text((left, top), text, fill=(255, 255, 255), font=font, stroke_width=max(1, round(size / 14)), stroke_fill=(20, 20, 20))
    return copy


EDITS: dict[str, Edit] = {
    "resize": resized, "jpeg": recompressed, "crop": cropped, "border": bordered, "blur": blurred, "grey": grey, "gamma": gamma,
    "mirror": mirrored, "turn": turned, "caption": captioned,
}  # fmt: skip


def planted(image: Image.Image, name: str, rng: np.random.Generator) -> bytes:
    """PNG bytes of a copy of an RGB picture under one of EDITS."""
    sink = io.BytesIO()
    EDITS[name](image, rng).save(sink, "PNG")
    return sink.getvalue()
