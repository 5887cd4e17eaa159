"""What a picture's EXIF and colour profile say: when, with what camera, where; typed, with units, and null where broken."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from PIL import Image, ImageCms

from discovery.adapters.decode import FORMATS
from discovery.adapters.raw import TIFF_SIGNATURES, preview_bytes, raw_format, tiff_tags
from discovery.adapters.videos import VideoFacts

EXIF_IFD, GPS_IFD = 0x8769, 0x8825
MAKE, MODEL, DATE_TIME = 0x010F, 0x0110, 0x0132
EXPOSURE_TIME, F_NUMBER, ISO, FLASH, FOCAL_LENGTH, LENS_MODEL = 0x829A, 0x829D, 0x8827, 0x9209, 0x920A, 0xA434
DATE_TIME_ORIGINAL, OFFSET_ORIGINAL, SUBSECOND_ORIGINAL = 0x9003, 0x9011, 0x9291
DATE_TIME_DIGITIZED, OFFSET_DIGITIZED, SUBSECOND_DIGITIZED = 0x9004, 0x9012, 0x9292
OFFSET, SUBSECOND, COLOR_SPACE = 0x9010, 0x9290, 0xA001
LATITUDE_REF, LATITUDE, LONGITUDE_REF, LONGITUDE, ALTITUDE_REF, ALTITUDE = 1, 2, 3, 4, 5, 6
TIMES = (
    (EXIF_IFD, DATE_TIME_ORIGINAL, SUBSECOND_ORIGINAL, OFFSET_ORIGINAL),
    (EXIF_IFD, DATE_TIME_DIGITIZED, SUBSECOND_DIGITIZED, OFFSET_DIGITIZED),
    (0, DATE_TIME, SUBSECOND, OFFSET),
)
LONGEST_TEXT = 200
ISO_6709 = re.compile(r"([+-]\d+(?:\.\d+)?)([+-]\d+(?:\.\d+)?)([+-]\d+(?:\.\d+)?)?")


@dataclass(frozen=True, slots=True)
class Metadata:
    """Columns of a manifest; None where the file does not say, or says nonsense (EXIF 2.32 names the tags).

    taken_at: ISO 8601 date and time of the camera's clock, without a zone; taken_offset_min: minutes that clock was ahead of UTC.
    exposure_s: seconds. focal_length_mm: of the lens, not the 35-mm equivalent. gps_latitude_deg: WGS 84, north positive;
    gps_longitude_deg: east positive; gps_altitude_m: above sea level. color_profile: the ICC profile's own description, or "sRGB".
    """

    taken_at: str | None = None
    taken_offset_min: int | None = None
    camera_make: str | None = None
    camera_model: str | None = None
    lens_model: str | None = None
    exposure_s: float | None = None
    f_number: float | None = None
    iso: int | None = None
    focal_length_mm: float | None = None
    flash_fired: bool | None = None
    gps_latitude_deg: float | None = None
    gps_longitude_deg: float | None = None
    gps_altitude_m: float | None = None
    color_profile: str | None = None


METADATA_NAMES = tuple(field.name for field in fields(Metadata))
GPS_NAMES = tuple(name for name in METADATA_NAMES if name.startswith("gps_"))


def read_metadata(data: bytes) -> Metadata:
    """Of the bytes of a picture that decodes; never raises for what they say."""
    if raw_format(data):
        tags = tiff_tags(data) if data.startswith(TIFF_SIGNATURES) else Image.Exif()
        return from_exif(tags) if len(tags) else _of_picture(preview_bytes(data))
    return _of_picture(data)


def of_video(facts: VideoFacts, time_ns: int) -> Metadata:
    """Of the frame at that time: taken so long after its video began, with the same camera at the same place."""
    began, taken_at, offset = facts.created_at, None, None
    if began is not None:
        taken_at = (began.replace(tzinfo=None) + timedelta(microseconds=time_ns // 1000)).isoformat(timespec="milliseconds")
        offset = round((began.utcoffset() or timedelta()) / timedelta(minutes=1))
    place = ISO_6709.match(facts.location or "")
    latitude, longitude, altitude = (float(part) if part else None for part in place.groups()) if place else (None, None, None)
    placed = latitude is not None and longitude is not None and abs(latitude) <= 90 and abs(longitude) <= 180
    return Metadata(
        taken_at=taken_at,
        taken_offset_min=offset,
        camera_make=_text(facts.make),
        camera_model=_text(facts.model),
        gps_latitude_deg=latitude if placed else None,
        gps_longitude_deg=longitude if placed else None,
        gps_altitude_m=altitude if placed else None,
    )


def _of_picture(data: bytes) -> Metadata:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            tags = image.getexif()
            return from_exif(tags, profile_name(image.info.get("icc_profile")) or _named_space(image, tags))
    except Exception:  # a broken header's exceptions are of any kind
        return Metadata()


def from_exif(tags: Image.Exif, color_profile: str | None = None) -> Metadata:
    """Each field by itself: a broken tag costs that field alone."""
    inner, gps = _directory(tags, EXIF_IFD), _directory(tags, GPS_IFD)
    taken_at, offset = _taken(tags, inner)
    latitude = _degrees(gps.get(LATITUDE), gps.get(LATITUDE_REF), "S", 90.0)
    longitude = _degrees(gps.get(LONGITUDE), gps.get(LONGITUDE_REF), "W", 180.0)
    placed = latitude is not None and longitude is not None and (latitude, longitude) != (0.0, 0.0)  # 0, 0: a receiver without a fix
    flash = _number(inner.get(FLASH))
    return Metadata(
        taken_at=taken_at,
        taken_offset_min=offset,
        camera_make=_text(tags.get(MAKE)),
        camera_model=_text(tags.get(MODEL)),
        lens_model=_text(inner.get(LENS_MODEL)),
        exposure_s=_positive(inner.get(EXPOSURE_TIME), 1e6),
        f_number=_positive(inner.get(F_NUMBER), 1e3),
        iso=_whole(_positive(inner.get(ISO), 1e8)),
        focal_length_mm=_positive(inner.get(FOCAL_LENGTH), 1e5),
        flash_fired=None if flash is None else bool(int(flash) & 1),
        gps_latitude_deg=latitude if placed else None,
        gps_longitude_deg=longitude if placed else None,
        gps_altitude_m=_altitude(gps) if placed else None,
        color_profile=color_profile,
    )


def profile_name(profile: object) -> str | None:
    """The description inside an ICC profile."""
    if not isinstance(profile, bytes) or not profile:
        return None
    try:
        return _text(ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))))
    except Exception:  # Pillow raises PyCMSError, OSError and ValueError
        return None


def _named_space(image: Image.Image, tags: Image.Exif) -> str | None:
    says_srgb = "srgb" in image.info or _number(_directory(tags, EXIF_IFD).get(COLOR_SPACE)) == 1
    return "sRGB" if says_srgb else None


def _directory(tags: Image.Exif, which: int) -> Mapping[int, Any]:
    try:
        return dict(tags.get_ifd(which))
    except Exception:  # Pillow raises SyntaxError, struct.error, TypeError and more on broken ones
        return {}


def _taken(tags: Image.Exif, inner: Mapping[int, Any]) -> tuple[str | None, int | None]:
    for place, when, fraction, zone in TIMES:
        text = _text(inner.get(when) if place else tags.get(when))
        moment = _moment(text) if text else None
        if moment is None:
            continue
        digits = (_text(inner.get(fraction)) or "").strip()
        if digits.isascii() and digits.isdigit():
            moment += timedelta(seconds=float(f"0.{digits}"))
        return moment.isoformat(timespec="milliseconds"), _offset_min(_text(inner.get(zone)))
    return None, None


def _moment(text: str) -> datetime | None:
    """EXIF's "2026:11:23 18:31:00"; some programs write dashes, a T, or a zone behind it."""
    head = text.strip().replace("-", ":", 2).replace("T", " ", 1)[:19]
    try:
        moment = datetime.strptime(head, "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return None
    return moment if moment.year >= 1826 else None  # before the first photograph: a clock never set


def _offset_min(text: str | None) -> int | None:
    if text is None or len(text) < 6 or text[0] not in "+-" or text[3] != ":":
        return None
    try:
        minutes = int(text[1:3]) * 60 + int(text[4:6])
    except ValueError:
        return None
    return (minutes if text[0] == "+" else -minutes) if minutes <= 14 * 60 else None


def _text(value: object) -> str | None:
    """Without the NULs and blanks that cameras pad with."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if not isinstance(value, str):
        return None
    clean = "".join(letter for letter in value.split("\0")[0] if letter.isprintable()).strip()
    return clean[:LONGEST_TEXT].encode(errors="replace").decode() or None


def _number(value: object) -> float | None:
    """Finite, of a number, a rational or the first of several."""
    if isinstance(value, tuple | list):
        value = value[0] if value else None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _positive(value: object, most: float) -> float | None:
    number = _number(value)
    return number if number is not None and 0 < number <= most else None


def _whole(number: float | None) -> int | None:
    return None if number is None else round(number)


def _degrees(value: object, reference: object, negative: str, most: float) -> float | None:
    parts = [_number(part) for part in value[:3]] if isinstance(value, tuple | list) else []
    letter = (_text(reference) or "").upper()[:1]
    if len(parts) != 3 or None in parts or not letter:
        return None
    degrees = sum(abs(part) / scale for part, scale in zip(parts, (1.0, 60.0, 3600.0), strict=True) if part is not None)
    return (-degrees if letter == negative else degrees) if degrees <= most else None


def _altitude(gps: Mapping[int, Any]) -> float | None:
    metres = _number(gps.get(ALTITUDE))
    if metres is None or abs(metres) > 100_000:
        return None
    below = gps.get(ALTITUDE_REF) in (1, b"\x01", "\x01")
    return -abs(metres) if below else metres
