"""Sidecars: small XMP and JSON files beside a picture that say something of it (tags, a rating, labels)."""

from __future__ import annotations

import json
import math
import re
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from discovery.adapters.places import tells_place, without_places

SUFFIXES = (".xmp", ".json")
MAX_BYTES = 4 * 2**20  # a larger file of that name is data of another kind
MAX_KEYS = 1000  # each becomes a column; a file with more is data of another kind, too
MAX_NAME = 200  # characters
SURROGATE = re.compile("[\ud800-\udfff]")
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
XMP_NAMES = {
    "{http://ns.adobe.com/xap/1.0/}Rating": "rating",
    "{http://ns.adobe.com/xap/1.0/}Label": "label",
    "{http://purl.org/dc/elements/1.1/}subject": "tags",
    "{http://purl.org/dc/elements/1.1/}title": "title",
    "{http://purl.org/dc/elements/1.1/}description": "description",
}


def is_sidecar(uri: str, size_bytes: int) -> bool:
    """By name and size.

    >>> is_sidecar("s3://photos/a.JPG.xmp", 900), is_sidecar("a.jpg", 900)
    (True, False)
    """
    return uri.lower().endswith(SUFFIXES) and size_bytes <= MAX_BYTES


def read_sidecar(uri: str, data: bytes, keep_place: bool) -> dict[str, Any]:
    """Names and values: of XMP the rating, label, tags (joined by ", "), title and description; of JSON every key of its object.

    Of JSON, names of more than MAX_NAME characters are left out, NaN and infinities are null, and half a surrogate pair is U+FFFD.

    keep_place: whether keys that tell a place stay, at whatever depth (adapters.places). Raises ValueError for a file that is neither.
    """
    said = _xmp(data) if uri.lower().endswith(".xmp") else _json(data, keep_place)
    return {name: value for name, value in said.items() if value not in (None, "")}


def _json(data: bytes, keep_place: bool) -> dict[str, Any]:
    try:
        said = _writable(json.loads(data))
        if not isinstance(said, dict):
            raise ValueError("not a JSON object")
        if len(said) > MAX_KEYS:
            raise ValueError(f"{len(said):,} keys; at most {MAX_KEYS:,} are expected")
        kept = said if keep_place else without_places(said, tells_place) or {}
        return {name.strip(): _plain(value) for name, value in kept.items() if 0 < len(name.strip()) <= MAX_NAME}
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _writable(value: Any) -> Any:
    """JSON as every table can hold it: half a surrogate pair is U+FFFD; NaN and infinities, which Python reads, are null."""
    if isinstance(value, str):
        return SURROGATE.sub("\ufffd", value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_writable(item) for item in value]
    return {_writable(name): _writable(item) for name, item in value.items()} if isinstance(value, dict) else value


def _plain(value: Any) -> str | float | None:
    """A list of words as XMP's tags are; anything deeper as JSON, and so an integer that no float64 holds."""
    if value is None or isinstance(value, str | float | bool) or (isinstance(value, int) and abs(value) <= 2**53):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _xmp(data: bytes) -> dict[str, Any]:
    try:
        top = fromstring(data, forbid_dtd=True)
    except (ParseError, DefusedXmlException, LookupError) as error:  # LookupError: an encoding that Python does not know
        raise ValueError(f"not XMP: {error}") from error
    said: dict[str, Any] = {}
    for description in top.iter(f"{RDF}Description"):
        for full, name in XMP_NAMES.items():
            inner = description.find(full)
            text = description.get(full) if inner is None else _words(inner)
            if text:
                said[name] = text
    if "rating" in said:
        said["rating"] = _rating(said["rating"])
    return said


def _words(element: Element) -> str:
    items = [item.text.strip() for item in element.iter(f"{RDF}li") if item.text]
    return ", ".join(items) if items else (element.text or "").strip()


def _rating(text: str) -> int | None:
    try:
        rating = int(float(text))
    except (ValueError, OverflowError):
        return None
    return rating if abs(rating) <= 2**53 else None
