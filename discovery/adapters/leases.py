"""Leases: who is writing under a root right now, so that gc leaves alone what they are about to commit.

    leases/<host>-<pid>-<id>/<n>      n = 0, 1, 2, … one a minute; 0 stays, of the others only the newest

A beat is a new empty object, since creating is the one write that folders and S3 share, and its age is told by the storage: no two
clocks are ever compared. The oldest object of a lease says since when it is held, the newest when its holder was last alive.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from contextlib import suppress
from dataclasses import dataclass

from discovery.adapters.files import Files
from discovery.errors import DiscoveryError

FOLDER = "leases"
BEAT_S = 60.0
DEAD_AFTER_S = 600.0  # ten beats lost


class Lease:
    """Held from the first `take` until `release`, or until ten minutes after the process was killed."""

    def __init__(self, files: Files, beat_s: float = BEAT_S) -> None:
        self.files = files
        self.beat_s = beat_s
        self.name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self) -> None:
        """Hold the lease from now on; nothing happens when it is held. Raises what a write may raise."""
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                self.files.create(self._path(0), b"")
                self._ended.clear()
                self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
                self._thread.start()

    def release(self) -> None:
        """Hold it no longer; nothing happens when it is not held. A storage that does not answer is left to find out by itself."""
        with self._lock, suppress(DiscoveryError):
            if self._thread is not None:
                self._ended.set()
                self._thread.join()
                self._thread = None
                for entry in list(self.files.walk(f"{FOLDER}/{self.name}")):
                    self.files.remove(entry.path)

    def _path(self, number: int) -> str:
        return f"{FOLDER}/{self.name}/{number}"

    def _beat(self) -> None:
        number = 0
        while not self._ended.wait(self.beat_s):
            try:
                self.files.create(self._path(number + 1), b"")
                number += 1
                if number > 1:
                    self.files.remove(self._path(number - 1))
            except DiscoveryError:
                continue  # the storage does not answer; the next beat tries again


@dataclass(frozen=True, slots=True)
class Held:
    """A lease as others see it: POSIX times of the storage, and the objects it consists of."""

    name: str
    since: float
    seen: float
    paths: tuple[str, ...]


def leases(files: Files) -> list[Held]:
    """Every lease there is, of the living and of the dead."""
    beats: dict[str, list[tuple[float, str]]] = {}
    for entry in files.walk(FOLDER):
        beats.setdefault(entry.path.split("/")[1], []).append((entry.changed, entry.path))
    return [Held(name, min(all_)[0], max(all_)[0], tuple(path for _, path in all_)) for name, all_ in beats.items()]
