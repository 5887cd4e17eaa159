"""Files of records as local files that can be mapped into memory: those of a local root where they lie, those of S3 copied once.

A file is hashed, and looked through by who uses it, before it is handed out; that is remembered with the file's identity (device, inode, size, times
of change, of which the kernel sets the last), so that opening an index of gigabytes again reads nothing. A changed file has another identity and is
hashed again.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from discovery.adapters.files import Files, LocalFiles, translated
from discovery.addressing import file_sha256
from discovery.errors import DiscoveryError

Check = Callable[[Path], None]


class LocalCopies:
    """Under `folder`: copies/<sha256>.<suffix> of remote files, and checked/<sha256>.json of what was hashed."""

    def __init__(self, files: Files, folder: Path) -> None:
        self.files = files
        self.folder = folder

    def path(self, name: str, sha256: str, changed: Callable[[str], DiscoveryError], check: Check | None = None, limit: int = 0) -> Path:
        """A local file with the bytes of `name`, which have that hash and passed `check`. FileNotFoundError when there is no such object.

        changed: makes the error to raise for another hash, which it is given. limit: bytes that copies may take together, those used
        longest ago go first; 0: no limit. The file must not be written to, and a copy may lose its name at any time: open it at once.
        """
        is_local = isinstance(self.files, LocalFiles)
        target = self.files.folder / name if isinstance(self.files, LocalFiles) else self.folder / "copies" / f"{sha256}{Path(name).suffix}"
        if not is_local and not target.is_file():
            self._fetch(name, target)
            self._make_room(target, limit)
        if self._identity(target, check) != self._remembered(sha256):
            if (found := file_sha256(target)) != sha256:
                if not is_local:
                    target.unlink(missing_ok=True)  # the next call copies it again
                raise changed(found)
            identity = self._identity(target, check)
            if check is not None:
                check(target)
            self._remember(sha256, identity)
        elif not is_local:
            with contextlib.suppress(OSError):
                os.utime(self.folder / "checked" / f"{sha256}.json")  # the time of the last use
        return target

    def _fetch(self, name: str, target: Path) -> None:
        with translated(f"Copying {name} to {target}", FileNotFoundError):
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".")
            os.close(handle)
            try:
                self.files.read_into(name, Path(temporary))
                os.replace(temporary, target)
            finally:
                Path(temporary).unlink(missing_ok=True)

    def _make_room(self, kept: Path, limit: int) -> None:
        copies = [path for path in kept.parent.iterdir() if path != kept and not path.name.startswith(".")] if limit else []

        def used(path: Path) -> float:
            stamp = self.folder / "checked" / f"{path.name.partition('.')[0]}.json"
            return stamp.stat().st_mtime if stamp.is_file() else 0.0

        left = kept.stat().st_size + sum(path.stat().st_size for path in copies)
        for path in sorted(copies, key=used):
            if left <= limit:
                break
            left -= path.stat().st_size
            path.unlink(missing_ok=True)  # who has it open keeps it

    @staticmethod
    def _identity(path: Path, check: Check | None) -> list[object]:
        found = path.stat()
        looked = getattr(getattr(check, "func", check), "__name__", "")
        return [str(path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, looked]

    def _remembered(self, sha256: str) -> list[object]:
        try:
            found = json.loads((self.folder / "checked" / f"{sha256}.json").read_text())
        except (OSError, ValueError):
            return []
        return found if isinstance(found, list) else []

    def _remember(self, sha256: str, identity: list[object]) -> None:
        stamp = self.folder / "checked" / f"{sha256}.json"
        with contextlib.suppress(OSError):  # a root that may only be read is hashed every time
            stamp.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=stamp.parent, prefix=".")
            with os.fdopen(handle, "w") as file:
                json.dump(identity, file)
            os.replace(temporary, stamp)
