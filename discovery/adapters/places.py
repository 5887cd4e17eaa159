"""Names that tell where a picture was taken; what is under them is kept only where `privacy.keep_gps` says so."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # GPSLatitude, gps_latitude and "gps latitude" are the same two
WITHIN = re.compile(r"gps|latitude|longitude|geotag|geoloc|coordinate", re.IGNORECASE)  # in whatever they are run together with
POSITION_WORDS = frozenset(
    {"lat", "lats", "lon", "lons", "long", "lng", "latlng", "latlon", "lonlat", "coord", "coords", "altitude", "utm", "mgrs"}
)
PLACE_WORDS = frozenset(
    {"position", "location", "locations", "sublocation", "place", "places", "city", "town", "village", "district", "county", "state"}
    | {"province", "country", "countries", "address", "street", "postcode", "postal", "venue", "landmark"}
)


def tells_position(name: str) -> bool:
    """Whether a value of that name is a position, or part of one.

    >>> [tells_position(name) for name in ("GPSLatitude", "exif:lon", "geoData", "pigeon", "flat", "city")]
    [True, True, True, False, False, False]
    """
    words = {word.lower() for word in WORD.findall(name)}
    return bool(WITHIN.search(name) or words & POSITION_WORDS or any(word.startswith("geo") for word in words))


def tells_place(name: str) -> bool:
    """Whether a value of that name is a position or names a place.

    >>> [tells_place(name) for name in ("lat", "City", "countryCode", "capacity", "electricity", "placement")]
    [True, True, True, False, False, False]
    """
    return tells_position(name) or any(word.lower() in PLACE_WORDS for word in WORD.findall(name))


def without_places(value: Any, tells: Callable[[str], bool]) -> Any:
    """JSON without the keys that `tells` is true of, at any depth, and without what is empty then; null when nothing is left.

    >>> without_places({"EXIF": {"GPSLatitude": 52.5}, "faces": [{"lat": 1, "name": "Ann"}], "none": {}}, tells_position)
    {'faces': [{'name': 'Ann'}], 'none': {}}
    """
    if isinstance(value, dict):
        items = [(name, item, without_places(item, tells)) for name, item in value.items() if not tells(name)]
        left: Any = {name: kept for name, item, kept in items if kept is not None or item is None}
    elif isinstance(value, list):
        pairs = [(item, without_places(item, tells)) for item in value]
        left = [kept for item, kept in pairs if kept is not None or item is None]
    else:
        return value
    return left if left or not value else None
