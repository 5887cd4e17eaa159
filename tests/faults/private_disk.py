"""A disk of its own in memory, of any size and read-only at will, that only the processes started on it see."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import TracebackType


class NoPrivateDisk(Exception):
    """This machine does not let the tests mount; the text says why."""


class PrivateDisk:
    """tmpfs on `folder` in a mount namespace; commands started with `prefix` see it. Needs root or user namespaces."""

    def __init__(self, folder: Path, size_kib: int) -> None:
        self.folder = folder
        self.size_kib = size_kib

    def __enter__(self) -> PrivateDisk:
        mount = f"mount -t tmpfs -o size={self.size_kib}k none '{self.folder}' && echo mounted && exec cat"
        self._users = [] if os.geteuid() == 0 else ["-r"]
        try:
            self._holder = subprocess.Popen(
                ["unshare", "-m", *self._users, "sh", "-c", mount], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        except FileNotFoundError as error:
            raise NoPrivateDisk(str(error)) from error
        assert self._holder.stdout is not None and self._holder.stderr is not None
        if self._holder.stdout.readline() != "mounted\n":
            raise NoPrivateDisk(self._holder.stderr.read().strip())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._holder.communicate(timeout=30)  # its stdin ends, so it does, and the disk with it

    @property
    def prefix(self) -> list[str]:
        """What a command must begin with to see the disk."""
        return ["nsenter", "-t", str(self._holder.pid), *(["-U", "--preserve-credentials"] if self._users else []), "-m", f"--wd={Path.cwd()}"]

    @property
    def seen(self) -> Path:
        """The disk's folder as processes outside see it."""
        return Path(f"/proc/{self._holder.pid}/root{self.folder}")

    def remount(self, *options: str) -> None:
        """Change the size (`size=1g`) or the right to write (`ro`, `rw`)."""
        subprocess.run([*self.prefix, "mount", "-o", ",".join(["remount", *options]), str(self.folder)], check=True, capture_output=True)

    @property
    def used_kib(self) -> int:
        """What is taken of it."""
        found = os.statvfs(self.seen)
        return (found.f_blocks - found.f_bfree) * found.f_frsize // 1024
