"""Camera RAW and DNG with LibRaw: told from plain TIFF, checked whole, shown as the camera shows them."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import rawpy
from PIL import Image

from discovery.types import Reason

RAW_FORMATS = ("DNG", "RAW")
TIFF_SIGNATURES = (b"II*\0", b"MM\0*")
SIGNATURES = (b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW", b"FOVb", b"\0MRM", b"II\x1a\0\0\0HEAPCCDR")  # ORF RW2 RAF X3F MRW CRW
NEW_SUBFILE_TYPE, PHOTOMETRIC, SUB_IFDS, DNG_VERSION = 254, 262, 330, 50706
CFA, LINEAR_RAW = 32803, 34892
ORIENTATION_OF_FLIP = {0: 1, 3: 3, 5: 8, 6: 6}  # LibRaw's flip to EXIF's orientation
TURN = {3: Image.Transpose.ROTATE_180, 8: Image.Transpose.ROTATE_90, 6: Image.Transpose.ROTATE_270}


class RawError(Exception):
    """Why a RAW file gives no picture: `reason` from the closed list, `detail` for a person."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class RawPicture:
    """`image` is RGB and upright; `width_px` and `height_px` are the sensor's, upright, whatever size `image` has."""

    image: Image.Image
    format: str
    width_px: int
    height_px: int
    orientation: int


def raw_format(data: bytes) -> str:
    """'DNG' or 'RAW' (any other camera format); empty for what is none. Most RAW files are TIFFs whose first picture is a thumbnail."""
    if data.startswith(SIGNATURES) or data[4:12] == b"ftypcrx ":
        return "RAW"
    if not data.startswith(TIFF_SIGNATURES):
        return ""
    if data[8:10] == b"CR":
        return "RAW"
    tags = tiff_tags(data)
    if DNG_VERSION in tags:
        return "DNG"
    mosaic = tags.get(PHOTOMETRIC) in (CFA, LINEAR_RAW)
    return "RAW" if mosaic or (SUB_IFDS in tags and tags.get(NEW_SUBFILE_TYPE) == 1) else ""


def tiff_tags(data: bytes) -> Image.Exif:
    """The tags of the first directory of a TIFF; none when it is broken."""
    tags = Image.Exif()
    try:
        tags.load(data)
        dict(tags)  # Pillow reads values when they are asked for
    except Exception:  # Pillow raises SyntaxError, struct.error and more on broken ones
        return Image.Exif()
    return tags


def decode_raw(data: bytes, max_pixels: int, at_least_px: int | None = None) -> RawPicture:
    """The camera's own preview when it has at least half the sensor's sides, else the sensor's data rendered by LibRaw.

    Rendered: the camera's white balance, sRGB, 8 bits, no brightening. The sensor's data are unpacked either way, so that a cut file is
    told, unless at_least_px says that the caller knows the file and needs only that many pixels on the shorter side. Raises RawError.
    """
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            sizes, kind = raw.sizes, raw_format(data)
            if sizes.width * sizes.height > max_pixels:
                raise RawError(Reason.TOO_MANY_PIXELS, f"{sizes.width} x {sizes.height} px declared; the limit is {max_pixels}")
            orientation = ORIENTATION_OF_FLIP.get(sizes.flip, 1)
            image = _preview(raw, orientation, max_pixels, at_least_px)
            if image is None or at_least_px is None:
                raw.unpack()
            if image is None:
                half = at_least_px is not None and min(sizes.width, sizes.height) >= 2 * at_least_px
                pixels = raw.postprocess(use_camera_wb=True, no_auto_bright=True, output_bps=8, half_size=half)
                image = Image.fromarray(np.ascontiguousarray(pixels))
            width, height = (sizes.height, sizes.width) if orientation >= 5 else (sizes.width, sizes.height)
            return RawPicture(image, kind, width, height, orientation)
    except rawpy.LibRawFileUnsupportedError as error:
        raise RawError(Reason.UNSUPPORTED_FORMAT, "a camera format that LibRaw does not know, or a broken header") from error
    except rawpy.LibRawIOError as error:
        raise RawError(Reason.TRUNCATED, _text(error)) from error
    except rawpy.LibRawTooBigError as error:
        raise RawError(Reason.TOO_MANY_PIXELS, _text(error)) from error
    except rawpy.LibRawError as error:
        raise RawError(Reason.CORRUPT, _text(error)) from error


def preview_bytes(data: bytes) -> bytes:
    """The embedded JPEG; empty without one."""
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            return _preview_bytes(raw)
    except rawpy.LibRawError:
        return b""


def _preview_bytes(raw: rawpy.RawPy) -> bytes:
    try:
        thumb = raw.extract_thumb()
    except rawpy.LibRawError:
        return b""
    return bytes(thumb.data) if thumb.format is rawpy.ThumbFormat.JPEG else b""


def _preview(raw: rawpy.RawPy, orientation: int, max_pixels: int, at_least_px: int | None) -> Image.Image | None:
    """The embedded JPEG, upright; None when it is small or broken."""
    try:
        with Image.open(io.BytesIO(_preview_bytes(raw)), formats=("JPEG",)) as image:
            sensor = raw.sizes
            if 2 * min(image.size) < min(sensor.width, sensor.height) or image.width * image.height > max_pixels:
                return None
            lies_as_sensor = (image.width >= image.height) == (sensor.width >= sensor.height)
            if at_least_px is not None:
                image.draft("RGB", (at_least_px, at_least_px))
            rgb = image.convert("RGB")
    except Exception:  # there is none, or a broken one beside sensor data that are fine
        return None
    return rgb.transpose(TURN[orientation]) if orientation in TURN and (lies_as_sensor or orientation == 3) else rgb


def _text(error: Exception) -> str:
    text = error.args[0] if error.args else ""
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)
