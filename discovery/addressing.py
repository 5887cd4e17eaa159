"""Names made from content: the SHA-256 of bytes, of canonical JSON, and the keys under which stages commit."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

JPEG_START, COMMENT = b"\xff\xd8", b"\xff\xfe"
SHA256_PATTERN = re.compile(r"[0-9a-f]{64}")


def sha256_hex(data: bytes) -> str:
    """Lower-case hex SHA-256 of `data`.

    >>> sha256_hex(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    """Of a file's bytes, whatever its size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """One text for one value: keys sorted, no spaces, no NaN, so that equal values hash equally everywhere.

    value: what `json` can write; tuples count as lists. Raises ValueError on NaN and infinities, which JSON lacks.

    >>> canonical_json({"b": (1, 2), "a": 0.1})
    '{"a":0.1,"b":[1,2]}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_id(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`."""
    return sha256_hex(canonical_json(value).encode())


def frame_id(video_sha256: str, time_ns: int) -> str:
    """The id of a video frame: of its video's bytes and its time from the start, so that it outlives any decoder.

    >>> frame_id(sha256_hex(b""), 1_000_000_000)[:8]
    'a88308c2'
    """
    return content_id(["frame", video_sha256, time_ns])


def stamp_frame(jpeg: bytes, video_sha256: str, time_ns: int) -> bytes:
    """A frame's JPEG with a comment that says whose frame it is and the SHA-256 of the rest, so that `matches` can tell."""
    said = canonical_json({"frame": [video_sha256, time_ns], "sha256": sha256_hex(jpeg)}).encode()
    return jpeg[:2] + COMMENT + (len(said) + 2).to_bytes(2, "big") + said + jpeg[2:]


def matches(data: bytes, asset_id: str) -> bool:
    """Whether these are the whole, unchanged bytes of an asset: of a file by their hash, of a stored frame by its comment."""
    if sha256_hex(data) == asset_id:
        return True
    if data[:4] != JPEG_START + COMMENT:
        return False
    end = 4 + int.from_bytes(data[4:6], "big")
    try:
        said = json.loads(data[6:end])
        return said["sha256"] == sha256_hex(JPEG_START + data[end:]) and frame_id(*said["frame"]) == asset_id
    except (ValueError, TypeError, KeyError):
        return False


def stage_key(stage: str, stage_version: int, identity: dict[str, Any], inputs: Sequence[str]) -> str:
    """The name of a stage's result, made from everything that decides it and nothing that only changes speed.

    identity: the identity fields of the stage's configuration. inputs: record ids, in the stage's order.

    >>> stage_key("embed", 1, {"k": 5}, ["a"]) == stage_key("embed", 1, {"k": 5}, ["a"])
    True
    >>> stage_key("embed", 1, {"k": 5}, ["a"]) == stage_key("embed", 2, {"k": 5}, ["a"])
    False
    """
    return content_id([stage, stage_version, identity, list(inputs)])


def is_content_id(text: str) -> bool:
    """Whether `text` is a full lower-case SHA-256; the only form that may become part of a path."""
    return SHA256_PATTERN.fullmatch(text) is not None
