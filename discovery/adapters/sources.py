"""Sources: what a folder, file, glob or fsspec URI lists, and reading one object of it; opened read-only, never changed."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from discovery.adapters.files import is_local, local_path, open_filesystem, translated
from discovery.addressing import content_id
from discovery.config import S3Config
from discovery.errors import SourceNotFound

GLOB_CHARACTERS = frozenset("*?[")


@dataclass(frozen=True, slots=True, order=True)
class Listed:
    """One object of a source, as its listing tells, before a byte is read; `modified_at` and `etag` as the source writes them."""

    uri: str
    size_bytes: int
    modified_at: str
    etag: str

    @property
    def fingerprint(self) -> tuple[str, int, str, str]:
        """What must stay the same for the object to count as unchanged."""
        return (self.uri, self.size_bytes, self.modified_at, self.etag)


def list_sources(uris: Sequence[str], s3: S3Config, excluded: Path | None = None) -> list[Listed]:
    """Every object of the sources, sorted by URI, each once.

    uris: folders, files, globs or fsspec URIs. excluded: a folder that is left out (the store, when it lies inside a source).
    Raises SourceNotFound when a source does not exist or lists nothing, AccessDenied when its server refuses.
    """
    found: dict[str, Listed] = {}
    for uri in uris:
        listed = [item for item in _list_one(uri, s3) if excluded is None or not Path(item.uri).is_relative_to(excluded)]
        if not listed:
            raise SourceNotFound(
                f"Source {uri} is empty: nothing to ingest. Check the path or the prefix; a folder is read recursively."
            )
        found.update((item.uri, item) for item in listed)
    if not found:
        raise SourceNotFound("No source was given. Example: discovery run ~/Pictures")
    return sorted(found.values())


def listing_digest(listed: Sequence[Listed]) -> str:
    """One id for what a source held: equal listings, equal ids."""
    return content_id([item.fingerprint for item in listed])


def read_object(uri: str, s3: S3Config) -> bytes:
    """All bytes of one listed object. Raises SourceNotFound when it vanished, AccessDenied, StorageError."""
    with translated(f"Reading {uri}"):
        if is_local(uri):
            return local_path(uri).read_bytes()
        filesystem, path = open_filesystem(uri, s3)
        return bytes(filesystem.cat_file(path))


def folder_of(uri: str) -> str:
    """Name of the folder an object lies in; empty at the top of a bucket.

    >>> folder_of("s3://photos/animals/cat.jpg")
    'animals'
    """
    parts = uri.split("://", 1)[-1].split("/")
    return parts[-2] if len(parts) > 1 else ""


def _list_one(uri: str, s3: S3Config) -> Iterator[Listed]:
    if is_local(uri):
        place = local_path(uri)
        with translated(f"Listing {uri}"):
            if place.is_file():
                yield _local(place)
            elif place.is_dir():
                yield from _walk(place)
            elif GLOB_CHARACTERS & set(str(place)):
                for match in sorted(glob.glob(str(place), recursive=True)):
                    yield from [_local(Path(match))] if Path(match).is_file() else _walk(Path(match))
            else:
                raise SourceNotFound(
                    f"Source {uri} does not exist. Check the spelling; a folder, file, glob or s3://bucket/prefix is expected."
                )
        return
    filesystem, path = open_filesystem(uri, s3)
    protocol = uri.split("://", 1)[0]
    with translated(f"Listing {uri}"):
        if GLOB_CHARACTERS & set(path):
            entries = filesystem.glob(path, detail=True)
        else:
            entries = filesystem.find(path, detail=True)
            if not entries:
                filesystem.ls(path.split("/", 1)[0])  # tells a missing bucket or a refusal from an empty prefix
        for full, info in sorted(entries.items()):
            if info.get("type") == "directory" or full.endswith("/"):
                continue
            changed = info.get("LastModified") or info.get("mtime") or ""
            yield Listed(
                f"{protocol}://{full}",
                int(info.get("size") or 0),
                changed.isoformat() if isinstance(changed, datetime) else str(changed),
                str(info.get("ETag") or info.get("etag") or "").strip('"'),
            )


def _walk(folder: Path) -> Iterator[Listed]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            file = Path(parent, name)
            if file.is_file():
                yield _local(file)


def _local(path: Path) -> Listed:
    stat = path.stat()
    modified = datetime.fromtimestamp(stat.st_mtime_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return Listed(str(path.absolute()), stat.st_size, f"{modified}.{stat.st_mtime_ns % 1_000_000_000:09d}Z", "")
