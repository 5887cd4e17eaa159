"""Lists: a CSV or Parquet file that names objects, one a row, and may say more about each (labels, tags)."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from discovery.adapters.places import tells_position, without_places
from discovery.errors import ConfigError

KINDS = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
URI_COLUMNS = ("uri", "source_uri", "object_uri", "url", "path", "file_name", "filename")
LISTING_COLUMNS = frozenset({"size_bytes", "modified_at", "etag"})  # what spares a look at the object
SEPARATORS = ",;\t|"
MAX_SIZE_BYTES = 2**62  # what a table of int64 holds, and no object reaches
PAGE = 10_000

Row = dict[str, Any] | str  # values by column; or what is wrong with the row


class Entry(NamedTuple):
    """One row of a list.

    uri: as written, or below the list's folder when it is relative. attributes: JSON object of the other columns. address: `LIST#row=N`, N from 1 without the header. problem: why the row names no object; its uri is then its address.
    """

    uri: str
    size_bytes: int | None
    modified_at: str
    etag: str
    attributes: str
    address: str
    problem: str = ""


def list_kind(uri: str) -> str:
    """'csv' or 'parquet' by the name; empty for anything else.

    >>> list_kind("s3://photos/train.parquet"), list_kind("s3://photos")
    ('parquet', '')
    """
    return next((kind for suffix, kind in KINDS.items() if uri.lower().endswith(suffix)), "")


def read_list(path: Path, uri: str, reserved: Collection[str], keep_place: bool = False) -> Iterator[Entry]:
    """Rows in order, a page in memory; one that names no object is an entry with a problem.

    Values of a CSV are text, as it stands there. path: the file on this machine. uri: its address, for messages and as the base of relative names. reserved: column names that are
    taken. keep_place: whether columns stay that tell a position (adapters.places); one that names a place always does, for it was
    written to be filtered by. Raises ConfigError when it is no such file, has no column of URIs or one that is taken.
    """
    with ExitStack() as stack:
        names, rows = _parquet(path, uri, stack) if list_kind(uri) == "parquet" else _csv(path, uri, stack)
        place = next((name for name in URI_COLUMNS if name in names), None)
        if place is None:
            raise ConfigError(f"List {uri} has no column of URIs: expected one named {', '.join(URI_COLUMNS)}; found {', '.join(names)}.")
        others = [name for name in names if name not in (place, *LISTING_COLUMNS) and (keep_place or not tells_position(name))]
        if taken := sorted({name.lower() for name in others} & {name.lower() for name in reserved}):
            raise ConfigError(f"List {uri}: column {taken[0]!r} has the name of a column of ours. Rename it.")
        for number, row in enumerate(rows, 1):
            address = f"{uri}#row={number}"
            try:
                if isinstance(row, str):
                    raise ValueError(row)
                yield _entry(row, place, others, uri.rpartition("/")[0], address, keep_place)
            except ValueError as error:
                yield Entry(address, None, "", "", "", address, problem=str(error))


def merge_said(rows: Iterable[tuple[str, str]]) -> tuple[str, str, str]:
    """What several rows say of one object: (attributes, address, problem), the last two of the first row that contradicts another.

    rows: (address, attributes) in their order; a name has the value of the first row that has it.

    >>> merge_said([("l.csv#row=1", '{"label":"cat"}'), ("l.csv#row=2", '{"label":"dog","stars":"3"}')])
    ('{"label": "cat", "stars": "3"}', 'l.csv#row=2', "label is 'dog' here and 'cat' in l.csv#row=1, which counts")
    """
    said: dict[str, tuple[Any, str]] = {}
    contradictions: dict[str, str] = {}
    for address, attributes in rows:
        for name, value in json.loads(attributes).items():
            known, by = said.setdefault(name, (value, address))
            if known != value:
                contradictions.setdefault(address, f"{name} is {value!r} here and {known!r} in {by}, which counts")
    first = next(iter(contradictions), "")
    others = f"; {len(contradictions) - 1:,} more rows contradict" if len(contradictions) > 1 else ""
    return _json({name: value for name, (value, _) in said.items()}), first, contradictions.get(first, "") + others


def _parquet(path: Path, uri: str, stack: ExitStack) -> tuple[list[str], Iterator[Row]]:
    connection = stack.enter_context(duckdb.connect())
    try:
        relation = connection.read_parquet(str(path))
        names = list(relation.columns)
    except duckdb.Error as error:
        raise ConfigError(f"List {uri} cannot be read: {str(error).splitlines()[0]}.") from error
    return names, (row for batch in relation.to_arrow_reader(PAGE) for row in batch.to_pylist())


def _csv(path: Path, uri: str, stack: ExitStack) -> tuple[list[str], Iterator[Row]]:
    # Python's reader, not DuckDB's: that guesses types from the first rows, and ends at the first row that does not keep to them.
    text = stack.enter_context(path.open(encoding="utf-8-sig", errors="surrogateescape", newline=""))
    line = text.readline()
    if not line.strip():
        raise ConfigError(f"List {uri} cannot be read: its first line is empty; the names of its columns are expected there.")
    if not _is_unicode(line):
        raise ConfigError(f"List {uri} cannot be read: the names of its columns are not UTF-8. Save it as UTF-8.")
    headers = [(separator, _names(line, separator)) for separator in SEPARATORS]
    named = [header for header in headers if set(header[1]) & set(URI_COLUMNS)]
    separator, names = max(named or headers, key=lambda header: len(header[1]))  # of equals the first
    return names, _csv_rows(csv.reader(text, delimiter=separator, strict=True), names)


def _names(line: str, separator: str) -> list[str]:
    """Of the columns; one without a name, or with one that came before in whatever case, is told apart by its number."""
    names: list[str] = []
    for number, cell in enumerate(next(csv.reader([line], delimiter=separator))):
        name = cell.strip() or f"column{number}"
        names.append(f"{name}_{number}" if name.lower() in {known.lower() for known in names} else name)
    return names


def _csv_rows(reader: Any, names: list[str]) -> Iterator[Row]:
    while True:
        first = reader.line_num + 2  # the header was read before
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # a quote that is not closed takes the lines behind it, up to csv.field_size_limit
            yield f"lines {first} to {reader.line_num + 1}: {error}; look for a quote that is not closed"
            continue
        if not cells:
            continue
        if len(cells) != len(names):
            yield f"line {first}: {len(cells)} values under {len(names)} columns; put values that hold the separator in quotes"
        elif not _is_unicode("".join(cells)):
            yield f"line {first} is not UTF-8; save the list as UTF-8"
        else:
            yield dict(zip(names, (cell or None for cell in cells), strict=True))


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def _entry(row: dict[str, Any], place: str, others: list[str], base: str, address: str, keep_place: bool) -> Entry:
    """Raises ValueError for a row that names no object."""
    name = row[place]
    name = str(name) if isinstance(name, int) and not isinstance(name, bool) else name
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise ValueError(f"{place} is {name!r}; the name of an object is expected")
    said = {name: _plain(row[name], keep_place) for name in others}
    known = {name: value for name, value in said.items() if value is not None}
    return Entry(
        uri=name if "://" in name or name.startswith(("/", "~")) or not base else f"{base}/{name}",
        size_bytes=_size_bytes(row.get("size_bytes")), modified_at=str(row.get("modified_at") or ""), etag=str(row.get("etag") or ""),
        attributes=_json(known) if known else "", address=address,
    )  # fmt: skip


def _size_bytes(value: Any) -> int | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):  # pandas writes both for "unknown"
        return None
    try:
        size = float(value)
    except (TypeError, ValueError):
        size = math.nan
    if not (0 <= size < MAX_SIZE_BYTES and size.is_integer()):
        raise ValueError(f"size_bytes is {value!r}; a whole number of 0 or more, or nothing, is expected")
    return int(size) if isinstance(value, float) or "." in str(value) or "e" in str(value).lower() else int(value)


def _plain(value: Any, keep_place: bool) -> Any:
    """As JSON has it: NaN and infinities, which it lacks, are null; times, decimals and bytes are text."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_plain(item, keep_place) for item in value]
    if isinstance(value, dict):  # a struct of Parquet
        kept = value if keep_place else without_places(value, tells_position)
        return None if kept is None else {str(name): _plain(item, keep_place) for name, item in kept.items()}
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def _json(said: dict[str, Any]) -> str:
    return json.dumps(said, sort_keys=True, ensure_ascii=False, allow_nan=False)
