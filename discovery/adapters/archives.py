"""Tar and zip archives: their members one after the other, never unpacked to disk; what cannot be read is said, and the rest still comes."""

from __future__ import annotations

import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from discovery.adapters.byte_budget import ByteBudget
from discovery.types import Reason

SUFFIXES = {".zip": "zip", ".tar": "tar", ".tar.gz": "tar", ".tgz": "tar", ".tar.bz2": "tar", ".tar.xz": "tar"}
MAX_MEMBERS = 200_000
ADDRESS = "(?s)((?:zip|tar)://.*?)(::(?:/|[a-z][a-z0-9+.-]*://).*)"  # of a member; an archive's own address is whole, so that names may hold ::
BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)


@dataclass(slots=True)
class Member:
    """One file of an archive: its bytes, or why there are none. An empty name stands for the archive itself.

    held_bytes: what it holds of the budget, until whoever has the member lets it go.
    """

    name: str
    size_bytes: int
    data: bytes = b""
    reason: Reason | None = None
    detail: str = ""
    held_bytes: int = 0

    def let_go(self, budget: ByteBudget) -> None:
        """Forget the bytes, to which others may still refer through this member, and give back what they hold."""
        self.data, held, self.held_bytes = b"", self.held_bytes, 0
        budget.give_back(held)


def archive_kind(uri: str) -> str:
    """'zip' or 'tar' by the name; empty for anything else.

    >>> archive_kind("s3://photos/2026.tar.gz"), archive_kind("a.jpg")
    ('tar', '')
    """
    return next((kind for suffix, kind in SUFFIXES.items() if uri.lower().endswith(suffix)), "")


def member_uri(kind: str, name: str, archive_uri: str) -> str:
    """The address of a member, as fsspec chains them: `zip://a/b.jpg::s3://photos/2026.zip`."""
    return f"{kind}://{name}::{archive_uri}"


def split_address(uri: str) -> tuple[str, str]:
    """The address inside an archive and the archive's own; all of it and '' for what is in none, whatever its name holds.

    >>> split_address("zip://a/b::c.jpg::s3://photos/2026.zip"), split_address("/photos/x::y.jpg")
    (('zip://a/b::c.jpg', 's3://photos/2026.zip'), ('/photos/x::y.jpg', ''))
    """
    found = re.fullmatch(ADDRESS, uri)
    return (found[1], found[2].removeprefix("::")) if found else (uri, "")


def members(path: Path, kind: str, max_bytes: int, budget: ByteBudget) -> Iterator[Member]:
    """Files of an archive in the order they lie there; each is read when the budget has room, and holds it until it is let go.

    max_bytes: larger members are named, not read, whatever their header says. A broken archive gives the members before the break, then
    one with an empty name and the reason; so does one without files, or with more than MAX_MEMBERS.
    """
    count = 0
    try:
        for member in _zip(path, max_bytes, budget) if kind == "zip" else _tar(path, max_bytes, budget):
            if count == MAX_MEMBERS:
                member.let_go(budget)
                yield Member("", 0, reason=Reason.TOO_LARGE, detail=f"more than {MAX_MEMBERS:,} files; the others were not read")
                return
            count += 1
            member.name = member.name.encode(errors="backslashreplace").decode()  # tar names may be any bytes
            yield member
    except BROKEN as error:
        yield Member("", 0, reason=Reason.CORRUPT, detail=f"after {count:,} files: {type(error).__name__}: {error}"[:300])
        return
    if not count:
        yield Member("", 0, reason=Reason.EMPTY, detail="an archive without files")


def _zip(path: Path, max_bytes: int, budget: ByteBudget) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            if info.flag_bits & 1:
                yield Member(info.filename, info.file_size, reason=Reason.UNSUPPORTED_FORMAT, detail="encrypted")
                continue
            try:
                with archive.open(info) as stream:
                    yield _read(stream, info.filename, info.file_size, max_bytes, budget)
            except BROKEN as error:  # the directory at the end is whole, so that the next may be
                yield Member(info.filename, info.file_size, reason=Reason.CORRUPT, detail=f"{type(error).__name__}: {error}"[:300])


def _tar(path: Path, max_bytes: int, budget: ByteBudget) -> Iterator[Member]:
    with tarfile.open(path, "r|*") as archive:  # a stream: no index in memory, and compressed ones are read once
        for info in archive:
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every header otherwise
            if info.isdir():
                continue
            stream = archive.extractfile(info) if info.isreg() else None
            if stream is None:
                yield Member(info.name, 0, reason=Reason.UNSUPPORTED_FORMAT, detail="a link or a device, not a file")
                continue
            yield _read(stream, info.name, info.size, max_bytes, budget)


def _read(stream: IO[bytes], name: str, size: int, max_bytes: int, budget: ByteBudget) -> Member:
    if size > max_bytes:
        return Member(name, size, reason=Reason.TOO_LARGE, detail=f"{size} bytes; the limit is {max_bytes}")
    budget.take(size)
    try:
        data = stream.read(max_bytes + 1)  # a header may say less than comes out
        if len(data) < size:
            raise EOFError(f"{name} ends after {len(data)} of {size} bytes")
    except BaseException:
        budget.give_back(size)
        raise
    if len(data) > max_bytes:
        budget.give_back(size)
        return Member(name, len(data), reason=Reason.TOO_LARGE, detail=f"more bytes than its header says; the limit is {max_bytes}")
    return Member(name, size, data, held_bytes=size)
