"""What is planted: small edits that make near copies, other formats, orientation tags, and unreadable files."""

import random
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageEnhance, ImageOps

from demo.screen import on_white

ORIENTATION_TAG = 0x0112
STORED_AS = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
"""How the pixels are turned by orientation tag, so that a viewer that heeds the tag shows the picture upright."""
FORMATS = {"gif": "GIF", "tiff": "TIFF", "bmp": "BMP"}
MIN_SIDE_TO_RESIZE_PX = 128
BOMB_SIDE_PX = 40_000


class PlantFailed(RuntimeError):
    """A planted file is not what the truth would say of it, e.g. a truncated picture still decodes."""


def _resized(image: Image.Image, factor: float) -> Image.Image:
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.LANCZOS)


def _cropped(image: Image.Image, share: float) -> Image.Image:
    """Without `share` of the width and of the height, half of it on each side, and at least one pixel."""
    dx, dy = max(1, round(image.width * share / 2)), max(1, round(image.height * share / 2))
    return image.crop((dx, dy, image.width - dx, image.height - dy))


def _gamma(image: Image.Image, gamma: float) -> Image.Image:
    return image.point([round(255 * (value / 255) ** gamma) for value in range(256)] * 3)


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "resize-1/2": lambda image: _resized(image, 0.5),
    "resize-3/4": lambda image: _resized(image, 0.75),
    "jpeg-60": lambda image: image,
    "brightness-0.93": lambda image: ImageEnhance.Brightness(image).enhance(0.93),
    "gamma-1.15": lambda image: _gamma(image, 1.15),
    "crop-0.04": lambda image: _cropped(image, 0.04),
}


def near_copy(original: Path, edit: str) -> tuple[bytes, str]:
    """The edited picture and its suffix: .jpg for jpeg-60 and for the edits of a JPEG, else .png; on white."""
    with Image.open(original) as image:
        is_jpeg = edit == "jpeg-60" or image.format == "JPEG"
        edited = EDITS[edit](on_white(ImageOps.exif_transpose(image)))
    out = BytesIO()
    if is_jpeg:
        edited.save(out, "JPEG", quality=60 if edit == "jpeg-60" else 92)
    else:
        edited.save(out, "PNG")
    return out.getvalue(), ".jpg" if is_jpeg else ".png"


def reencoded(original: Path, suffix: str) -> bytes:
    """The picture as a .gif, .tiff or .bmp; the GIF has 256 colours."""
    out = BytesIO()
    with Image.open(original) as image:
        on_white(ImageOps.exif_transpose(image)).save(out, FORMATS[suffix])
    return out.getvalue()


def oriented(original: Path, orientation: int) -> bytes:
    """A JPEG whose pixels lie turned and whose EXIF orientation (3, 6 or 8) tells the way back; other EXIF is kept."""
    out = BytesIO()
    with Image.open(original) as image:
        upright = ImageOps.exif_transpose(image)
        exif = upright.getexif()
        exif[ORIENTATION_TAG] = orientation
        on_white(upright).transpose(STORED_AS[orientation]).save(out, "JPEG", quality=95, exif=exif)
    return out.getvalue()


def blank(number: int) -> tuple[bytes, str]:
    """One of three uniform pictures, white, black and grey, in three formats, and its suffix."""
    colour, suffix, format_name = (("white", ".png", "PNG"), ("black", ".jpg", "JPEG"), ("gray", ".webp", "WEBP"))[number % 3]
    out = BytesIO()
    Image.new("RGB", (320, 240), colour).save(out, format_name)
    return out.getvalue(), suffix


def unreadable(kind: str, donor: Path, rng: random.Random) -> tuple[bytes, str]:
    """A file that no decoder should take for a picture, and its suffix; `donor` lends the pixels of the damaged ones.

    Raises PlantFailed when Pillow decodes it all the same.
    """
    content, suffix = UNREADABLE[kind](donor, rng)
    if decodes(content):
        raise PlantFailed(f"the {kind} made of {donor} still decodes; take a larger donor.")
    return content, suffix


def decodes(content: bytes) -> bool:
    """Whether Pillow opens the bytes and decodes all pixels, with its own limit of pixels as it stands."""
    try:
        with Image.open(BytesIO(content)) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, TypeError, Image.DecompressionBombError):
        return False
    return True


def _encoded(donor: Path, format_name: str) -> bytes:
    out = BytesIO()
    with Image.open(donor) as image:
        on_white(image).save(out, format_name)
    return out.getvalue()


def _half(donor: Path, format_name: str) -> bytes:
    whole = _encoded(donor, format_name)
    return whole[: len(whole) // 2]


def _corrupt_png(donor: Path) -> bytes:
    """A PNG with 64 wrong bytes in the middle of its pixels, so that the check sum and the zlib stream fail."""
    content = bytearray(_encoded(donor, "PNG"))
    at = (content.index(b"IDAT") + len(content)) // 2
    content[at : at + 64] = bytes(byte ^ 0x5A for byte in content[at : at + 64])
    return bytes(content)


def _bomb() -> bytes:
    """A PNG of 69 bytes that declares 40,000 x 40,000 grey pixels: 1.6 GB for a decoder that believes it."""
    header = struct.pack(">2I5B", BOMB_SIDE_PX, BOMB_SIDE_PX, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(bytes(64))) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


UNREADABLE: dict[str, Callable[[Path, random.Random], tuple[bytes, str]]] = {
    "truncated-jpeg": lambda donor, rng: (_half(donor, "JPEG"), ".jpg"),
    "truncated-png": lambda donor, rng: (_half(donor, "PNG"), ".png"),
    "empty": lambda donor, rng: (b"", ".jpg"),
    "text": lambda donor, rng: (b"Holiday pictures, film %d, to be sorted one day.\n" % rng.randrange(10**6), ".jpg"),
    "html": lambda donor, rng: (b"<!DOCTYPE html><html><body><h1>404 Not Found</h1></body></html>\n", ".png"),
    "random-bytes": lambda donor, rng: (rng.randbytes(20_000), ".webp"),
    "corrupt-png": lambda donor, rng: (_corrupt_png(donor), ".png"),
    "bomb": lambda donor, rng: (_bomb(), ".png"),
}
