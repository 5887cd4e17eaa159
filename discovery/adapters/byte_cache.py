"""Bytes by id in a local folder, bounded in size, shared by threads and processes; what was used longest ago goes first."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from discovery.adapters.files import translated
from discovery.addressing import is_content_id
from discovery.errors import InvalidInput

LEFT_FREE = 0.1  # of the limit, when room is made: looking through the folder should not be needed for every picture


class ByteCache:
    """At most `limit` bytes of files under `folder`, which belongs to the cache alone. What is taken out is not checked here: the caller does.

    The number of bytes is kept in a file, under a lock that all processes share. It may be too high after a kill, never too low, and is right again
    whenever room is made.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit

    def get(self, content_id: str) -> bytes | None:
        """The bytes, or None when they are not here (any more)."""
        path = self._path(content_id)
        try:
            data = path.read_bytes()
            os.utime(path)  # the time of the last use
        except OSError:
            return None
        return data

    def put(self, content_id: str, data: bytes) -> None:
        """Keep bytes, unless they alone are over the limit or are here. Raises StorageFull or StorageError when the folder cannot be written."""
        path = self._path(content_id)
        if len(data) > self.limit or path.exists():
            return
        with translated(f"Writing to the cache {self.folder}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked() as counter:
                used = self._used(counter)
                if used + len(data) > self.limit:
                    used = self._make_room(int(self.limit * (1 - LEFT_FREE)) - len(data))
                self._count(counter, used + len(data))  # before the file: a kill between leaves it too high
                handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
                try:
                    with os.fdopen(handle, "wb") as file:
                        file.write(data)
                    os.replace(temporary, path)
                finally:
                    Path(temporary).unlink(missing_ok=True)

    def drop(self, content_id: str) -> None:
        """Forget bytes."""
        self._path(content_id).unlink(missing_ok=True)

    def _path(self, content_id: str) -> Path:
        if not is_content_id(content_id):
            raise InvalidInput(f"{content_id[:80]!r} is not an id: expected 64 hexadecimal digits.")
        return self.folder / content_id[:2] / content_id

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The open file of the counter, which no other thread or process has meanwhile."""
        counter = os.open(self.folder / "bytes", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(counter, fcntl.LOCK_EX)
            yield counter
        finally:
            os.close(counter)

    def _used(self, counter: int) -> int:
        text = os.pread(counter, 32, 0)
        return int(text) if text.strip().isdigit() else sum(size for _, size, _ in self._held())

    @staticmethod
    def _count(counter: int, used: int) -> None:
        os.pwrite(counter, f"{used:<20}".encode(), 0)

    def _held(self) -> list[tuple[float, int, Path]]:
        """Last use, size and path of each file, those that a killed process left unfinished too."""
        found = []
        for path in self.folder.glob("??/*"):
            with suppress(FileNotFoundError):
                told = path.stat()
                found.append((told.st_mtime, told.st_size, path))
        for path in self.folder.glob("??/.*"):
            path.unlink(missing_ok=True)  # nobody writes now: the lock is held
        return found

    def _make_room(self, wanted: int) -> int:
        """Delete until at most `wanted` bytes are held; how many are."""
        held = sorted(self._held())
        used = sum(size for _, size, _ in held)
        for _, size, path in held:
            if used <= max(wanted, 0):
                break
            path.unlink(missing_ok=True)
            used -= size
        return used
