"""What buckets and other remote places hold: listed a page or a folder at a time, and read whole, as the very objects that were listed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from discovery.adapters.files import is_precondition_failure, open_filesystem, patiently, translated
from discovery.adapters.listing import GLOB_CHARACTERS, LeftOut, Listed
from discovery.config import S3Config
from discovery.errors import SourceChanged

Found = Iterator[tuple[str, dict[str, Any]]]  # path inside the file system, and what its listing says
CHUNK_BYTES = 2**20


def list_remote(uri: str, s3: S3Config, left_out: LeftOut) -> Iterator[Listed]:
    """The object of that name and all below it, or what a glob matches. In memory: one page (1,000 objects) of a bucket and the prefixes still
    to be listed; of other file systems one folder and the folders still to be listed.
    """
    filesystem, path = open_filesystem(uri, s3)
    protocol = uri.split("://", 1)[0]
    is_glob = bool(GLOB_CHARACTERS & set(path))
    if protocol != "s3":
        found = _matching(path, _folders(filesystem, _head(path), _depth(path))) if is_glob else _folders(filesystem, path)
    elif not is_glob:
        found = _below(filesystem, path)
    else:
        found = _matching(path, _flat(filesystem, path)) if "**" in path else _by_prefix(filesystem, path)
    for full, info in found:
        if info.get("type") == "directory" or full.endswith("/") or (protocol == "s3" and left_out.has_key(full)):
            continue
        yield described(full if "://" in full else f"{protocol}://{full}", info)


def described(uri: str, info: dict[str, Any]) -> Listed:
    """A row for what a remote listing says."""
    changed = info.get("LastModified") or info.get("mtime") or ""
    modified = changed.isoformat() if isinstance(changed, datetime) else str(changed)
    etag = str(info.get("ETag") or info.get("etag") or "").strip('"')
    return Listed(uri, int(info.get("size", info.get("Size")) or 0), modified, etag)


def read_remote(uri: str, s3: S3Config, etag: str = "") -> bytes:
    """All bytes of an object, in one try. etag: only if this is its ETag still, else SourceChanged; asked of S3 alone."""
    filesystem, path = open_filesystem(uri, s3)
    if not uri.startswith("s3://"):
        return bytes(filesystem.cat_file(path))
    return bytes(_get(filesystem, uri, path, etag, lambda body: body.read()))


def fetch_remote(uri: str, s3: S3Config, target: Path, etag: str = "") -> None:
    """The same into a local file, CHUNK_BYTES in memory."""
    filesystem, path = open_filesystem(uri, s3)
    if not uri.startswith("s3://"):
        filesystem.get_file(path, str(target))
        return

    async def copy(body: Any) -> None:
        with open(target, "wb") as file:
            while chunk := await body.read(CHUNK_BYTES):
                file.write(chunk)

    _get(filesystem, uri, path, etag, copy)


def _get(filesystem: Any, uri: str, path: str, etag: str, use: Callable[[Any], Any]) -> Any:
    """One GET of the whole object; s3fs's own readers ask for the size first, or for parts, and take no condition."""
    from fsspec.asyn import sync

    bucket, _, key = path.partition("/")
    condition = {"IfMatch": f'"{etag}"'} if etag else {}

    async def get() -> Any:
        answer = await filesystem._call_s3("get_object", Bucket=bucket, Key=key, **condition)
        try:
            return await use(answer["Body"])
        finally:
            answer["Body"].close()

    try:
        return sync(filesystem.loop, get)
    except Exception as error:
        if is_precondition_failure(error):
            raise SourceChanged(f"Reading {uri}: it was replaced since it was listed with ETag {etag}. The next run lists and reads it anew.") from error
        raise


def _pages(filesystem: Any, bucket: str, **ask: Any) -> Iterator[dict[str, Any]]:
    """Pages of a listing (1,000 objects), as they come."""

    def listed(ask: dict[str, Any]) -> dict[str, Any]:
        with translated(f"Listing s3://{bucket}/{ask.get('Prefix', '')}"):
            return dict(filesystem.call_s3("list_objects_v2", Bucket=bucket, **ask))

    while True:
        page = patiently(partial(listed, dict(ask)))
        yield page
        if not page.get("IsTruncated") or "MaxKeys" in ask:
            return
        ask["ContinuationToken"] = page["NextContinuationToken"]


def _contents(bucket: str, pages: Iterator[dict[str, Any]]) -> Found:
    for page in pages:
        yield from ((f"{bucket}/{info['Key']}", info) for info in page.get("Contents", ()))


def _below(filesystem: Any, path: str) -> Found:
    """The object of that name, if there is one, and all below it: s3fs's own `find` holds them all."""
    bucket, _, key = path.rstrip("/").partition("/")
    if key:
        first = _contents(bucket, _pages(filesystem, bucket, Prefix=key, MaxKeys=1))
        yield from ((full, info) for full, info in first if full == f"{bucket}/{key}")
    yield from _contents(bucket, _pages(filesystem, bucket, Prefix=f"{key}/" if key else ""))  # photos2/ is not in photos


def _flat(filesystem: Any, pattern: str) -> Found:
    """Every object that begins as a glob does."""
    bucket, _, key = _fixed(pattern).partition("/")
    return _contents(bucket, _pages(filesystem, bucket, Prefix=key))


def _by_prefix(filesystem: Any, pattern: str) -> Found:
    """What a glob without ** matches, one level after the other, so that what lies deeper is not listed."""
    bucket, *parts = pattern.split("/")
    waiting = [("", 0)]
    while waiting:
        prefix, number = waiting.pop()
        part = parts[number]
        is_last = number == len(parts) - 1
        if not GLOB_CHARACTERS & set(part) and not is_last:
            waiting.append((f"{prefix}{part}/", number + 1))
            continue
        matches = _matcher(part)
        for page in _pages(filesystem, bucket, Prefix=prefix + _fixed(part), Delimiter="/"):
            if is_last:
                yield from ((f"{bucket}/{info['Key']}", info) for info in page.get("Contents", ()) if matches(info["Key"].removeprefix(prefix)))
            else:
                inside = [found["Prefix"] for found in page.get("CommonPrefixes", ())]
                waiting.extend((folder, number + 1) for folder in inside if matches(folder.removeprefix(prefix).rstrip("/")))


def _folders(filesystem: Any, top: str, depth: int | None = None) -> Found:
    """Every file below a folder of another file system, and that of its own name; fsspec's own `find` holds them all, and leaves out what fails."""
    waiting = [(top, 1)]
    seen = {top.rstrip("/")}
    while waiting:
        folder, level = waiting.pop()
        for info in filesystem.ls(folder, detail=True):
            name = info["name"].rstrip("/")
            if info["type"] != "directory":
                yield info["name"], info
            elif name not in seen and (depth is None or level < depth):
                seen.add(name)
                waiting.append((name, level + 1))


def _matching(pattern: str, found: Found) -> Found:
    matches = _matcher(pattern)
    return ((full, info) for full, info in found if matches(full))


def _matcher(pattern: str) -> Callable[[str], bool]:
    from fsspec.utils import glob_translate

    expression = re.compile(glob_translate(pattern))
    return lambda name: expression.match(name) is not None


def _fixed(pattern: str) -> str:
    return pattern[: min((pattern.index(character) for character in GLOB_CHARACTERS & set(pattern)), default=len(pattern))]


def _head(pattern: str) -> str:
    return _fixed(pattern).rpartition("/")[0]


def _depth(pattern: str) -> int | None:
    return None if "**" in pattern else pattern.removeprefix(_head(pattern)).strip("/").count("/") + 1
