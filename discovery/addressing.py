"""Names made from content: the SHA-256 of bytes, of canonical JSON, and the keys under which stages commit."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

SHA256_PATTERN = re.compile(r"[0-9a-f]{64}")


def sha256_hex(data: bytes) -> str:
    """Lower-case hex SHA-256 of `data`.

    >>> sha256_hex(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(data).hexdigest()


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
