"""Picture bytes to RGB pixels with Pillow, libheif and LibRaw: upright, transparency on white, 8 bits; or a reason why not."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from discovery.adapters.raw import RawError, decode_raw, raw_format
from discovery.types import Reason

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "HEIF", "AVIF")
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"II*\0", b"MM\0*", b"BM")
ISO_BRANDS = (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1", b"ftyphevc", b"ftypavif", b"ftypavis")
KINDS = {"MPO": "JPEG", "HEIF": "HEIC"}  # MPO: a JPEG with more pictures behind it
ORIENTATION_TAG = 0x0112

pillow_heif.register_heif_opener(thumbnails=False, decode_threads=1)
Image.init()  # registers every plugin now; otherwise the first thread that meets a format pays for all
Image.MAX_IMAGE_PIXELS = None  # our own limit is checked on the declared size, before any pixel is decoded
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY  # 64 MiB; printers' colour profiles are over the 1 MiB of Pillow


class Undecodable(Exception):
    """Why bytes are not a picture we can use; `reason` is from the closed list, `detail` for a person."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Decoded:
    """`image` is RGB and oriented; `width_px` and `height_px` are the full size after orientation, whatever scale was decoded."""

    image: Image.Image
    format: str
    width_px: int
    height_px: int
    orientation: int

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(h, w, 3) uint8, sRGB as stored."""
        return np.asarray(self.image)


def decode(data: bytes, max_pixels: int, at_least_px: int | None = None) -> Decoded:
    """Decode the first frame.

    max_pixels: more declared pixels are refused before decoding. at_least_px: the shorter side that is enough; JPEGs are then
    decoded at the smallest DCT scale that keeps it (Pillow's draft), which costs a fraction. Raises Undecodable.
    """
    if not data:
        raise Undecodable(Reason.EMPTY, "0 bytes")
    if raw_format(data):
        return _decode_raw(data, max_pixels, at_least_px)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise Undecodable(Reason.TOO_MANY_PIXELS, f"{width} x {height} px declared; the limit is {max_pixels}")
            if width == 0 or height == 0:
                raise Undecodable(Reason.CORRUPT, f"{width} x {height} px declared")
            kind = KINDS.get(str(image.format), str(image.format))
            if at_least_px is not None and kind == "JPEG":
                image.draft("RGB", (at_least_px, at_least_px))
            image.load()
            orientation = _orientation(image)
            turned = ImageOps.exif_transpose(image) if orientation > 1 else image
            rgb = _to_rgb(turned)
    except Undecodable:
        raise
    except UnidentifiedImageError as error:
        known = data.startswith(SIGNATURES) or data[4:12] in ISO_BRANDS
        reason = Reason.CORRUPT if known else Reason.UNSUPPORTED_FORMAT
        raise Undecodable(reason, "header cannot be read" if known else "no picture of a known format") from error
    except MemoryError as error:
        raise Undecodable(Reason.TOO_MANY_PIXELS, "needs more memory than a decoder may have") from error
    except Exception as error:  # decoders raise SyntaxError, TypeError, struct.error and more on broken files
        text = str(error)
        truncated = isinstance(error, EOFError) or any(word in text.lower() for word in ("truncat", "unexpected end", "end of file"))
        raise Undecodable(Reason.TRUNCATED if truncated else Reason.CORRUPT, f"{type(error).__name__}: {text}"[:300]) from error
    if orientation >= 5:  # a quarter turn
        width, height = height, width
    return Decoded(rgb, kind, width, height, orientation)


def _decode_raw(data: bytes, max_pixels: int, at_least_px: int | None) -> Decoded:
    try:
        raw = decode_raw(data, max_pixels, at_least_px)
    except RawError as error:
        raise Undecodable(error.reason, error.detail) from error
    except MemoryError as error:
        raise Undecodable(Reason.TOO_MANY_PIXELS, "needs more memory than a decoder may have") from error
    return Decoded(raw.image, raw.format, raw.width_px, raw.height_px, raw.orientation)


def thumbnail_webp(image: Image.Image, longer_px: int) -> bytes:
    """WebP bytes of an RGB image, its longer side at most `longer_px`; never enlarged."""
    small = image.copy()
    small.thumbnail((longer_px, longer_px), Image.Resampling.BICUBIC, reducing_gap=2.0)
    sink = io.BytesIO()
    small.save(sink, "WEBP", quality=80, method=2)
    return sink.getvalue()


def frame_jpeg(image: Image.Image) -> bytes:
    """A video frame as JPEG of quality 95: videos are lossy and 4:2:0 themselves."""
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=95, subsampling="4:2:0")
    return sink.getvalue()


def shrink(image: Image.Image, longer_px: int) -> Image.Image:
    """The image with its longer side at most `longer_px`, by area means; never enlarged."""
    longest = max(image.size)
    if longest <= longer_px:
        return image
    size = (max(1, round(image.width * longer_px / longest)), max(1, round(image.height * longer_px / longest)))
    return image.resize(size, Image.Resampling.BOX)


def _orientation(image: Image.Image) -> int:
    try:
        value = int(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # broken EXIF of a picture whose pixels are fine
        return 1
    return value if 1 <= value <= 8 else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image).astype(np.float64)
        top = 65535.0 if image.mode != "F" else (float(np.nanmax(values)) if values.size else 1.0)
        scaled = np.clip(np.nan_to_num(values) / (top or 1.0) * 255.0, 0, 255).astype(np.uint8)
        return Image.fromarray(scaled).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        flat = Image.alpha_composite(white, rgba).convert("RGB")
        profile = image.info.get("icc_profile") or b""
        if profile[16:20] == b"RGB ":
            flat.info["icc_profile"] = profile
        return flat
    return image.convert("RGB") if image.mode != "RGB" else image
