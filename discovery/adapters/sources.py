"""Sources: what a folder, file, glob or fsspec URI lists, in a stream, and reading one object of it; opened read-only, never changed."""

from __future__ import annotations

import glob
import os
import stat
import tempfile
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import numpy as np

from discovery.adapters.files import is_local, local_path, open_filesystem, patiently, translated
from discovery.adapters.lists import Entry, list_kind, read_list
from discovery.addressing import sha256_hex
from discovery.config import S3Config
from discovery.errors import DiscoveryError, SourceNotFound, StorageError
from discovery.types import Reason

T = TypeVar("T")
GLOB_CHARACTERS = frozenset("*?[")
LOOKS = 16  # objects of a list looked at once
PAGE = 10_000


class Listed(NamedTuple):
    """One object of a source, as its listing tells, before a byte is read; `modified_at` and `etag` as the source writes them.

    problem: why the listing itself says that it cannot be read (a folder without rights, a dangling link); empty for all others.
    problem_reason: of types.Reason, for a problem that is settled; else it may pass. attributes: JSON object of what a list says of it
    besides. named_by: the row of the list that did.
    """

    object_uri: str
    object_bytes: int
    modified_at: str
    etag: str = ""
    problem: str = ""
    attributes: str = ""
    problem_reason: str = ""
    named_by: str = ""


def bad_row(address: str, problem: str) -> Listed:
    """A row of a list that names no object, or contradicts another; listed under its own address, so that it is accounted for."""
    # the tag tells this problem from another at the same row later
    return Listed(address, 0, "", sha256_hex(problem.encode()), problem, problem_reason=Reason.CORRUPT)


def list_sources(
    uris: Sequence[str], s3: S3Config, excluded: Path | None = None, reserved: Collection[str] = (), keep_place: bool = False
) -> Iterator[Listed]:
    """Every object of the sources, as it is found; sources that overlap give some of them twice.

    uris: folders, files, globs, fsspec URIs, or lists of such (CSV, Parquet). excluded: a folder that is left out (the store, when it
    lies inside a source). reserved: names that a column of a list must not have. keep_place: whether its positions stay. Memory is that of one page of a bucket, or of one
    folder. Raises SourceNotFound when a source does not exist or lists nothing, AccessDenied when its server refuses, ConfigError for
    a list that is none.
    """
    if not uris:
        raise SourceNotFound("No source was given. Example: discovery run ~/Pictures")
    for uri in uris:
        empty = True
        with translated(f"Listing {uri}"):
            if list_kind(uri):
                found = _list_named(uri, s3, reserved, keep_place)
            else:
                found = _list_local(uri, excluded) if is_local(uri) else _list_remote(uri, s3)
            for item in found:
                empty = False
                yield item
        if empty:
            raise SourceNotFound(
                f"Source {uri} is empty: nothing to ingest. Check the path or the prefix; a folder is read recursively."
            )


def read_object(uri: str, s3: S3Config, size_bytes: int | None = None) -> bytes:
    """All bytes of one object; throttling, timeouts, 5xx and cut bodies are tried again, each time after a longer pause.

    size_bytes: the listed size; another length is a cut body, or an object that changes while it is read. Raises SourceNotFound when
    it vanished, AccessDenied, StorageError.
    """

    def read() -> bytes:
        with translated(f"Reading {uri}"):
            if is_local(uri):
                data = local_path(uri).read_bytes()
            else:
                filesystem, path = open_filesystem(uri, s3)
                alone = {"max_concurrency": 1} if uri.startswith("s3://") else {}  # else s3fs asks for the size first, which is known
                data = bytes(filesystem.cat_file(path, **alone))
        _check_length(uri, len(data), size_bytes)
        return data

    return read() if is_local(uri) else patiently(read)


@contextmanager
def local_copy(uri: str, s3: S3Config, folder: Path, size_bytes: int | None = None) -> Iterator[Path]:
    """A file of this machine with the bytes of a large object: itself, or a copy in `folder` for the time of the context.

    Raises as `read_object` does.
    """
    if is_local(uri):
        with translated(f"Reading {uri}"):
            _check_length(uri, local_path(uri).stat().st_size, size_bytes)
        yield local_path(uri)
        return
    copy = folder / uuid.uuid4().hex

    def fetch() -> None:
        with translated(f"Reading {uri}"):
            filesystem, path = open_filesystem(uri, s3)
            filesystem.get_file(path, str(copy))
        _check_length(uri, copy.stat().st_size, size_bytes)

    try:
        patiently(fetch)
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def _check_length(uri: str, found: int, listed: int | None) -> None:
    if listed is not None and found != listed:
        raise StorageError(f"Reading {uri}: {found:,} bytes came and {listed:,} were listed; cut off, or being written.")


def folder_of(uri: str) -> str:
    """Name of the folder an object lies in, or of the archive it is at the top of; empty at the top of a bucket.

    >>> folder_of("s3://photos/animals/cat.jpg"), folder_of("zip://cat.jpg::s3://photos/animals.zip")
    ('animals', 'animals')
    """
    inner, _, archive = uri.partition("::")
    parts = inner.split("://", 1)[-1].split("/")
    return parts[-2] if len(parts) > 1 else archive.rsplit("/", 1)[-1].split(".")[0]


def batches(listed: Iterable[Listed], size: int) -> Iterator[list[Listed]]:
    """The stream in lists of at most `size`."""
    batch: list[Listed] = []
    for item in listed:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _list_local(uri: str, excluded: Path | None) -> Iterator[Listed]:
    place = local_path(uri).absolute()
    left_out = str(excluded) if excluded else ""
    if place.is_file():
        yield from _stats([str(place)])
    elif place.is_dir():
        os.listdir(place)  # the source itself must be readable; a folder inside it that is not becomes a rejection
        yield from _walk(str(place), left_out)
    elif GLOB_CHARACTERS & set(str(place)):
        for match in glob.iglob(str(place), recursive=True):
            yield from _walk(match, left_out) if os.path.isdir(match) else _stats([match])
    else:
        raise SourceNotFound(
            f"Source {uri} does not exist. Check the spelling; a folder, file, glob or s3://bucket/prefix is expected."
        )


def _list_named(uri: str, s3: S3Config, reserved: Collection[str], keep_place: bool) -> Iterator[Listed]:
    """The objects that a list names; those whose size it does not give are looked at, several at once."""
    with tempfile.TemporaryDirectory(prefix="list-") as folder, local_copy(uri, s3, Path(folder)) as path, ThreadPoolExecutor(LOOKS) as pool:
        entries = read_list(path, str(local_path(uri).absolute()) if is_local(uri) else uri, reserved, keep_place)
        while page := list(islice(entries, PAGE)):
            yield from pool.map(lambda entry: _look(entry, s3), page)


def _look(entry: Entry, s3: S3Config) -> Listed:
    if entry.problem:
        return bad_row(entry.address, entry.problem)
    try:
        found = _found(entry, s3)
    except (DiscoveryError, ValueError, RuntimeError) as error:  # a NUL behind %00; "~somebody" who has no home
        found = Listed(entry.uri, 0, "", problem=str(error))
    return found._replace(attributes=entry.attributes, named_by=entry.address)


def _found(entry: Entry, s3: S3Config) -> Listed:
    if is_local(entry.uri):
        (found,) = _stats([str(local_path(entry.uri).absolute())])
        return found
    if entry.size_bytes is not None:
        return Listed(entry.uri, entry.size_bytes, entry.modified_at, entry.etag)
    info = patiently(partial(_info, entry.uri, s3))
    if info.get("size") is None:
        raise StorageError("its server does not tell its size")
    return _described(entry.uri, info)


def _info(uri: str, s3: S3Config) -> dict[str, Any]:
    with translated(f"Looking at {uri}"):
        filesystem, path = open_filesystem(uri, s3)
        return dict(filesystem.info(path))


def _walk(top: str, excluded: str) -> Iterator[Listed]:
    folders = [top]
    while folders:
        folder = folders.pop()
        if folder == excluded:
            continue
        files: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif not (entry.is_symlink() and entry.is_dir()):  # a linked folder is not followed: it may lead back
                        files.append(entry.path)
        except OSError as error:
            yield Listed(_local_uri(folder), 0, "", problem=f"folder cannot be listed: {error.strerror or error}")
        yield from _stats(files)


def _stats(paths: Sequence[str]) -> Iterator[Listed]:
    """What the file system says of each; their times are written all at once, which is most of the work of a listing."""
    regular: list[tuple[str, int, int]] = []
    for path in paths:
        try:
            found = os.stat(path)
        except OSError as error:
            yield Listed(_local_uri(path), 0, "", problem=error.strerror or str(error))
            continue
        if stat.S_ISREG(found.st_mode):
            regular.append((_local_uri(path), found.st_size, found.st_mtime_ns))
        else:
            yield Listed(_local_uri(path), 0, "", problem="neither a file nor a folder")
    times = np.datetime_as_string(np.array([at for _, _, at in regular], "datetime64[ns]"), timezone="UTC").tolist()
    for (uri, size, _), modified in zip(regular, times, strict=True):
        yield Listed(uri, size, modified)


def _local_uri(path: str) -> str:
    """The path itself, or a file:// URI for one that is not valid Unicode, which no table could hold."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "file://" + quote(os.fsencode(path))
    return path


def _list_remote(uri: str, s3: S3Config) -> Iterator[Listed]:
    filesystem, path = open_filesystem(uri, s3)
    protocol = uri.split("://", 1)[0]
    if GLOB_CHARACTERS & set(path):
        found: Iterable[tuple[str, dict[str, Any]]] = filesystem.glob(path, detail=True).items()
    elif protocol == "s3":
        found = _s3_pages(filesystem, path)
    else:
        found = filesystem.find(path, detail=True).items()
    for full, info in found:
        if info.get("type") == "directory" or full.endswith("/"):
            continue
        yield _described(f"{protocol}://{full}", info)


def _described(uri: str, info: dict[str, Any]) -> Listed:
    changed = info.get("LastModified") or info.get("mtime") or ""
    modified = changed.isoformat() if isinstance(changed, datetime) else str(changed)
    etag = str(info.get("ETag") or info.get("etag") or "").strip('"')
    return Listed(uri, int(info.get("size", info.get("Size")) or 0), modified, etag)


def _s3_pages(filesystem: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The object of that name, if there is one, and all below it, a page (1,000) at a time: s3fs's own `find` holds them all."""
    bucket, _, key = path.rstrip("/").partition("/")

    def listed(ask: dict[str, Any]) -> dict[str, Any]:
        with translated(f"Listing s3://{path}"):
            return dict(filesystem.call_s3("list_objects_v2", Bucket=bucket, **ask))

    if key:
        first = patiently(lambda: listed({"Prefix": key, "MaxKeys": 1})).get("Contents", [])
        yield from ((f"{bucket}/{key}", info) for info in first if info["Key"] == key)
    ask = {"Prefix": f"{key}/" if key else ""}  # photos2/ is not in photos
    while True:
        page = patiently(partial(listed, ask))
        yield from ((f"{bucket}/{info['Key']}", info) for info in page.get("Contents", ()))
        if not page.get("IsTruncated"):
            return
        ask["ContinuationToken"] = page["NextContinuationToken"]
