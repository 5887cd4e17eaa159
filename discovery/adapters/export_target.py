"""The place an export is written to: a folder or a prefix of a bucket, in which other files may lie that are never touched."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path

from discovery.adapters.files import Files, LocalFiles, is_local, local_path, open_files, translated
from discovery.addressing import file_sha256, sha256_hex
from discovery.config import S3Config
from discovery.errors import ConfigError

SMALL = 64 * 2**20  # hashed in memory
LEFT = re.compile(r"\.tmp-[0-9a-f]{32}")  # what a killed writer of LocalFiles leaves


class ExportTarget:
    """Whole files under one URI: a file is there with all its bytes or not at all."""

    def __init__(self, files: Files, uri: str) -> None:
        self.files = files
        self.uri = uri

    def sizes(self) -> dict[str, int]:
        """Of every file there is, by path."""
        return {entry.path: entry.size_bytes for entry in self.files.walk("")}

    def read(self, path: str) -> bytes | None:
        """All bytes, or None when there is no such file."""
        try:
            return self.files.read(path)
        except FileNotFoundError:
            return None

    def sha256(self, path: str, size_bytes: int) -> str:
        """Of what is there now; empty when it went meanwhile."""
        try:
            if isinstance(self.files, LocalFiles):
                with translated(f"Reading {self.files.folder / path}", FileNotFoundError):
                    return file_sha256(self.files.folder / path)
            if size_bytes <= SMALL:
                return sha256_hex(self.files.read(path))
            with tempfile.TemporaryDirectory(prefix="export-") as folder:
                copy = Path(folder, "copy")
                self.files.read_into(path, copy)
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
        """Remove what killed runs of an export, begun at `since`, left unfinished before a moment; both POSIX times of the storage."""
        if not isinstance(self.files, LocalFiles):
            return  # unfinished uploads are invisible; buckets drop them by their lifecycle rules
        for folder, _, names in os.walk(self.files.folder):
            for name in (name for name in names if LEFT.fullmatch(name)):
                with suppress(FileNotFoundError), translated(f"Removing {folder}/{name}", FileNotFoundError):
                    if since <= Path(folder, name).stat().st_mtime < before:
                        Path(folder, name).unlink()


def open_target(uri: str, s3: S3Config, root: str) -> ExportTarget:
    """The place that a URI names; a local folder is made when missing.

    Raises ConfigError when it lies in the store, whose files are its own, or is no folder nor bucket; AccessDenied.
    """
    if is_local(uri):
        place = local_path(uri).absolute()
        if is_local(root) and place.resolve().is_relative_to(local_path(root).absolute().resolve()):
            raise ConfigError(f"--out {uri} lies in the store {root}. Choose a place outside.")
        if place.exists() and not place.is_dir():
            raise ConfigError(f"--out {uri} is a file. Give a folder, or s3://bucket/prefix.")
    elif not uri.startswith("s3://"):
        raise ConfigError(f"--out {uri} is neither a folder nor s3://bucket/prefix: other stores cannot make a file whole or not at all.")
    elif f"{uri.rstrip('/')}/".startswith(f"{root.rstrip('/')}/"):
        raise ConfigError(f"--out {uri} lies in the store {root}. Choose a place outside.")
    return ExportTarget(open_files(uri, s3), uri)
