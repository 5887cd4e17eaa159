"""Sources: what a folder, file, glob or fsspec URI lists, in a stream, and reading one object of it; opened read-only, never changed."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from discovery.adapters.archives import split_address
from discovery.adapters.buckets import described, fetch_remote, list_remote, read_remote
from discovery.adapters.files import is_local, local_path, open_filesystem, patiently, translated
from discovery.adapters.folders import list_folder, list_glob, look_at, times
from discovery.adapters.listing import A_FOLDER, GLOB_CHARACTERS, LeftOut, Listed, bad_row
from discovery.adapters.lists import Entry, list_kind, read_list
from discovery.adapters.storage import OWN_FOLDERS
from discovery.config import S3Config
from discovery.errors import DiscoveryError, SourceChanged, SourceNotFound, StorageError

LOOKS = 16  # objects of a list looked at once
PAGE = 10_000
STORES_OWN = "a file of the store itself, which is no source"


def list_sources(
    uris: Sequence[str], s3: S3Config, stores: Sequence[str] = (), reserved: Collection[str] = (), keep_place: bool = False
) -> Iterator[Listed]:
    """Every object of the sources, as it is found; sources that overlap give some of them twice.

    uris: folders, files, globs, fsspec URIs, or lists of such (CSV, Parquet). stores: roots, whose own files are in no listing, whatever name
    leads to them. reserved: names that a column of a list must not have. keep_place: whether positions that a list tells stay. Memory is that
    of one page, and of the names of folders. Raises SourceNotFound when a source does not exist or lists nothing, AccessDenied when its
    server refuses, ConfigError for a list that is none.
    """
    if not uris:
        raise SourceNotFound("No source was given. Example: discovery run ~/Pictures")
    for uri in uris:
        empty = True
        with translated(f"Listing {uri}"):
            if list_kind(uri):
                found = _list_named(uri, s3, LeftOut.of(stores, OWN_FOLDERS), reserved, keep_place)
            else:
                left_out = LeftOut.of(stores, OWN_FOLDERS, uri)
                found = _list_local(uri, left_out) if is_local(uri) else list_remote(uri, s3, left_out)
            for item in found:
                empty = False
                yield item
        if empty:
            raise SourceNotFound(
                f"Source {uri} is empty: nothing to ingest. Check the path or the prefix; a folder is read recursively, without the store's own files."
            )


def read_object(uri: str, s3: S3Config, listed: Listed | None = None) -> bytes:
    """All bytes of one object; throttling, timeouts, 5xx and cut bodies are tried again, each time after a longer pause.

    listed: what its listing said; the bytes are those of that very object. Raises SourceNotFound when it vanished, SourceChanged when it is
    another by now, StorageError for another length (a cut body, or a file being written) and when it cannot be read, AccessDenied.
    """

    def read() -> bytes:
        with translated(f"Reading {uri}"):
            data = read_remote(uri, s3, listed.etag if listed else "")
        _check_length(uri, len(data), listed)
        return data

    return _read_local(uri, listed) if is_local(uri) else patiently(read)


def _read_local(uri: str, listed: Listed | None) -> bytes:
    with translated(f"Reading {uri}"), open(local_path(uri), "rb") as file:
        data = file.read()
        found = os.fstat(file.fileno())  # after reading: a write meanwhile has set the time
    _check_length(uri, len(data), listed)
    _check_time(uri, found, listed)
    return data


@contextmanager
def local_copy(uri: str, s3: S3Config, folder: Path, listed: Listed | None = None) -> Iterator[Path]:
    """A file of this machine with the bytes of a large object: itself, or a copy in `folder` for the time of the context.

    Raises as `read_object` does. Of a file of this machine call `check_unchanged` after it was read.
    """
    if is_local(uri):
        with translated(f"Reading {uri}"):
            _check_length(uri, local_path(uri).stat().st_size, listed)
        yield local_path(uri)
        return
    copy = folder / uuid.uuid4().hex

    def fetch() -> None:
        with translated(f"Reading {uri}"):
            fetch_remote(uri, s3, copy, listed.etag if listed else "")
        _check_length(uri, copy.stat().st_size, listed)

    try:
        patiently(fetch)
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def check_unchanged(listed: Listed) -> None:
    """Raises SourceChanged or StorageError when a file of this machine is no more what its listing said; of remote objects their server is asked."""
    if is_local(listed.object_uri):
        with translated(f"Reading {listed.object_uri}"):
            found = local_path(listed.object_uri).stat()
        _check_length(listed.object_uri, found.st_size, listed)
        _check_time(listed.object_uri, found, listed)


def _check_length(uri: str, found: int, listed: Listed | None) -> None:
    if listed is not None and found != listed.object_bytes:
        raise StorageError(f"Reading {uri}: {found:,} bytes came and {listed.object_bytes:,} were listed; cut off, or being written.")


def _check_time(uri: str, found: os.stat_result, listed: Listed | None) -> None:
    if listed is not None and (changed := times([found.st_mtime_ns])[0]) != listed.modified_at:
        raise SourceChanged(f"Reading {uri}: it was changed at {changed}, and listed as of {listed.modified_at}. The next run reads it anew.")


def folder_of(uri: str) -> str:
    """Name of the folder an object lies in, or of the archive it is at the top of; empty at the top of a bucket.

    >>> folder_of("s3://photos/animals/cat.jpg"), folder_of("zip://cat.jpg::s3://photos/animals.zip")
    ('animals', 'animals')
    """
    inner, archive = split_address(uri)
    parts = inner.split("://", 1)[-1].split("/")
    return parts[-2] if len(parts) > 1 else archive.rsplit("/", 1)[-1].split(".")[0]


def _list_local(uri: str, left_out: LeftOut) -> Iterator[Listed]:
    place = local_path(uri).absolute()
    if place.is_file():
        yield from () if left_out.has_path(os.path.realpath(place)) else look_at([str(place)])
    elif place.is_dir():
        yield from list_folder(str(place), left_out)
    elif GLOB_CHARACTERS & set(str(place)):
        yield from list_glob(str(place), left_out)
    else:
        raise SourceNotFound(
            f"Source {uri} does not exist. Check the spelling; a folder, file, glob or s3://bucket/prefix is expected."
        )


def _list_named(uri: str, s3: S3Config, left_out: LeftOut, reserved: Collection[str], keep_place: bool) -> Iterator[Listed]:
    """The objects that a list names; those whose size it does not give are looked at, several at once."""
    with tempfile.TemporaryDirectory(prefix="list-") as folder, local_copy(uri, s3, Path(folder)) as path, ThreadPoolExecutor(LOOKS) as pool:
        entries = read_list(path, str(local_path(uri).absolute()) if is_local(uri) else uri, reserved, keep_place)
        while page := list(islice(entries, PAGE)):
            yield from pool.map(lambda entry: _look(entry, s3, left_out), page)


def _look(entry: Entry, s3: S3Config, left_out: LeftOut) -> Listed:
    if entry.problem:
        return bad_row(entry.address, entry.problem)
    try:
        found = _found(entry, s3, left_out)
    except DiscoveryError as error:
        found = Listed(entry.uri, 0, "", problem=str(error), hides=not isinstance(error, SourceNotFound))
    except (ValueError, RuntimeError) as error:  # a NUL behind %00; "~somebody" who has no home
        found = Listed(entry.uri, 0, "", problem=str(error))
    return found._replace(attributes=entry.attributes, named_by=entry.address)


def _found(entry: Entry, s3: S3Config, left_out: LeftOut) -> Listed:
    if is_local(entry.uri):
        path = str(local_path(entry.uri).absolute())
        (found,) = look_at([path])
        return found._replace(problem=STORES_OWN if left_out.has_path(os.path.realpath(path)) else found.problem)
    if left_out.has_key(entry.uri.removeprefix("s3://")):
        return Listed(entry.uri, 0, "", problem=STORES_OWN)
    if entry.size_bytes is not None:
        return Listed(entry.uri, entry.size_bytes, entry.modified_at, entry.etag)
    info = patiently(partial(_info, entry.uri, s3))
    if info.get("type") == "directory":
        return Listed(entry.uri, 0, "", problem=A_FOLDER)
    if info.get("size") is None:
        raise StorageError("its server does not tell its size")
    return described(entry.uri, info)


def _info(uri: str, s3: S3Config) -> dict[str, Any]:
    with translated(f"Looking at {uri}"):
        filesystem, path = open_filesystem(uri, s3)
        return dict(filesystem.info(path))
