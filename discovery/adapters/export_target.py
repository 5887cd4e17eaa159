"""The place an export is written to: a folder or a prefix of a bucket, in which other files may lie that are never touched."""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from discovery.adapters.files import Files, LocalFiles, is_local, local_path, open_files, translated
from discovery.addressing import file_sha256, sha256_hex
from discovery.config import S3Config
from discovery.errors import ConfigError

SMALL = 64 * 2**20  # hashed in memory
DEAD_S = 3600  # nobody writes on what was not touched for so long
LEFT = re.compile(r"\.tmp-[0-9a-f]{32}")  # what a killed writer of LocalFiles leaves


class ExportTarget:
    """Whole files under one URI: a file is there with all its bytes or not at all."""

    def __init__(self, files: Files, uri: str) -> None:
        self.files = files
        self.uri = uri
        self._held = -1  # a descriptor of the folder, locked for as long as an export writes there

    @contextmanager
    def held(self) -> Iterator[None]:
        """Tell other writers of this folder that one is alive; the lock ends with the process, however that ends."""
        if not isinstance(self.files, LocalFiles):
            yield
            return
        with translated(f"Opening {self.files.folder}"):
            self._held = os.open(self.files.folder, os.O_RDONLY)
        try:
            self._lock(fcntl.LOCK_SH)
            yield
        finally:
            os.close(self._held)
            self._held = -1

    def _lock(self, kind: int) -> bool:
        try:
            fcntl.flock(self._held, kind)
        except OSError:  # another has it, or the file system knows no locks
            return False
        return True

    def sizes(self) -> dict[str, int]:
        """Of every file there is, by path."""
        return {entry.path: entry.size_bytes for entry in self.files.walk("")}

    def read(self, path: str) -> bytes | None:
        """All bytes, or None when there is no such file."""
        try:
            return self.files.read(path)
        except FileNotFoundError:
            return None

    @contextmanager
    def local(self, path: str) -> Iterator[Path]:
        """A file of this machine with the bytes of one that is there: itself, or a copy for the time of the context."""
        if isinstance(self.files, LocalFiles):
            yield self.files.folder / path
            return
        with tempfile.TemporaryDirectory(prefix="export-") as folder:
            copy = Path(folder, "copy")
            self.files.read_into(path, copy)
            yield copy

    def sha256(self, path: str, size_bytes: int) -> str:
        """Of what is there now; empty when it went meanwhile."""
        try:
            if isinstance(self.files, LocalFiles):
                with translated(f"Reading {self.files.folder / path}", FileNotFoundError):
                    return file_sha256(self.files.folder / path)
            if size_bytes <= SMALL:
                return sha256_hex(self.files.read(path))
            with self.local(path) as copy:
                return file_sha256(copy)
        except FileNotFoundError:
            return ""

    def create(self, path: str, data: bytes | Path) -> bool:
        """Make a file unless it is there; whether this call made it."""
        return self.files.create_from(path, data) if isinstance(data, Path) else self.files.create(path, data)

    def remove(self, path: str) -> None:
        """Delete one of our own files, and the folder that it leaves empty."""
        self.files.remove(path)
        if isinstance(self.files, LocalFiles):
            with suppress(OSError):  # not empty
                (self.files.folder / path).parent.rmdir()

    def sweep(self, since: float, before: float) -> None:
        """Remove what killed runs of an export, begun at `since`, left unfinished before a moment; both POSIX times of the storage.

        Of a folder in which another run may be writing, only what was not touched for an hour.
        """
        if not isinstance(self.files, LocalFiles):
            return  # unfinished uploads are invisible; buckets drop them by their lifecycle rules
        if not self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB):
            before = min(before, time.time() - DEAD_S)
        for folder, _, names in os.walk(self.files.folder):
            for name in (name for name in names if LEFT.fullmatch(name)):
                with suppress(FileNotFoundError), translated(f"Removing {folder}/{name}", FileNotFoundError):
                    if since <= Path(folder, name).stat().st_mtime < before:
                        Path(folder, name).unlink()
        self._lock(fcntl.LOCK_SH)


def open_target(uri: str, s3: S3Config, root: str) -> ExportTarget:
    """The place that a URI names; a local folder is made when missing.

    Raises ConfigError when it is empty, lies in the store or holds it, whose files are its own, or is no folder nor bucket; AccessDenied.
    """
    if not uri.removeprefix("file://").strip():
        raise ConfigError("--out is empty. Give a folder, or s3://bucket/prefix.")
    if is_local(uri):
        place = local_path(uri).absolute()
        if is_local(root):
            here, store = place.resolve(), local_path(root).absolute().resolve()
            if here.is_relative_to(store):
                raise ConfigError(f"--out {uri} lies in the store {root}. Choose a place outside.")
            if store.is_relative_to(here):
                raise ConfigError(f"--out {uri} holds the store {root}. Choose a folder of its own for the export.")
        if place.exists() and not place.is_dir():
            raise ConfigError(f"--out {uri} is a file. Give a folder, or s3://bucket/prefix.")
    elif not uri.startswith("s3://"):
        raise ConfigError(f"--out {uri} is neither a folder nor s3://bucket/prefix: other stores cannot make a file whole or not at all.")
    elif f"{uri.rstrip('/')}/".startswith(f"{root.rstrip('/')}/"):
        raise ConfigError(f"--out {uri} lies in the store {root}. Choose a place outside.")
    elif f"{root.rstrip('/')}/".startswith(f"{uri.rstrip('/')}/"):
        raise ConfigError(f"--out {uri} holds the store {root}. Choose a prefix of its own for the export.")
    return ExportTarget(open_files(uri, s3), uri)
