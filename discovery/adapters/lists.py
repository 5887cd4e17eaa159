"""Lists: a CSV or Parquet file that names objects, one a row, and may say more about each (labels, tags)."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from discovery.errors import ConfigError

KINDS = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
URI_COLUMNS = ("uri", "source_uri", "object_uri", "url", "path", "file_name", "filename")
LISTING_COLUMNS = frozenset({"size_bytes", "modified_at", "etag"})  # what spares a look at the object
PAGE = 10_000


class Entry(NamedTuple):
    """One row of a list. uri: as written, or below the list's folder when it is relative. attributes: JSON object of the other columns."""

    uri: str
    size_bytes: int | None
    modified_at: str
    etag: str
    attributes: str


def list_kind(uri: str) -> str:
    """'csv' or 'parquet' by the name; empty for anything else.

    >>> list_kind("s3://photos/train.parquet"), list_kind("s3://photos")
    ('parquet', '')
    """
    return next((kind for suffix, kind in KINDS.items() if uri.lower().endswith(suffix)), "")


def read_list(path: Path, uri: str, reserved: Collection[str]) -> Iterator[Entry]:
    """Rows in order, a page in memory.

    path: the file on this machine. uri: its address, for messages and as the base of relative names. reserved: column names that are
    taken. Raises ConfigError when it is no such file, has no column of URIs or one that is taken.
    """
    with duckdb.connect() as connection:
        try:
            relation = connection.read_parquet(str(path)) if list_kind(uri) == "parquet" else connection.read_csv(str(path))
            names = list(relation.columns)
        except duckdb.Error as error:
            raise ConfigError(f"List {uri} cannot be read: {str(error).splitlines()[0]}.") from error
        place = next((name for name in URI_COLUMNS if name in names), None)
        if place is None:
            raise ConfigError(f"List {uri} has no column of URIs: expected one named {', '.join(URI_COLUMNS)}; found {', '.join(names)}.")
        others = [name for name in names if name != place and name not in LISTING_COLUMNS]
        if taken := sorted({name.lower() for name in others} & {name.lower() for name in reserved}):
            raise ConfigError(f"List {uri}: column {taken[0]!r} has the name of a column of ours. Rename it.")
        base = uri.rpartition("/")[0]
        for batch in relation.to_arrow_reader(PAGE):
            for row in batch.to_pylist():
                yield _entry(row, place, others, base, uri)


def _entry(row: dict[str, Any], place: str, others: list[str], base: str, list_uri: str) -> Entry:
    name = row[place]
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(f"List {list_uri} has a row without a {place}: {row}.")
    size = row.get("size_bytes")
    known = {name: row[name] for name in others if row[name] is not None}
    return Entry(
        uri=name if "://" in name or name.startswith(("/", "~")) or not base else f"{base}/{name}",
        size_bytes=None if size is None else int(size), modified_at=str(row.get("modified_at") or ""), etag=str(row.get("etag") or ""),
        attributes=json.dumps(known, sort_keys=True, default=str, ensure_ascii=False) if known else "",
    )  # fmt: skip
