"""Reading and decoding ahead of what uses the pictures: two pools of threads, bounded in rows and in bytes.

    read (waits for disks and networks)  →  work (decodes; Pillow lets go of the GIL)  →  the caller, row range by row range

The caller says how far ahead rows may be worked on (`allow`) and waits for those before a row (`wait_until`). Nothing in a pool ever
waits for something else in a pool: a row is submitted when there is room for it, so there is nothing to deadlock on.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

READ_AHEAD_BYTES = 256 * 2**20  # of objects that were read and not yet decoded, by their mean size so far
SPAN_S, LONGEST_SPAN = 0.002, 8  # rows that are read in less go to a thread several at a time: its turn costs as much


@dataclass
class Seconds:
    """Where the time went. read_s and decode_s: of all threads together; wait_s: of the caller, for rows that were not ready."""

    read_s: float = 0.0
    decode_s: float = 0.0
    wait_s: float = 0.0


class ReadAhead:
    """`work(row, read(row))` for rows 0 to `rows`, ahead of the caller. The first error ends it and is raised in `wait_until`.

    read: from several threads at once; work: from `workers` threads, any order of rows. Use it as a context manager: leaving waits
    for what is running, and starts nothing new.
    """

    def __init__(
        self, read: Callable[[int], bytes], work: Callable[[int, bytes], None], rows: int, readers: int, workers: int
    ) -> None:
        self.seconds = Seconds()
        self._read, self._work, self._rows = read, work, rows
        self._readers = ThreadPoolExecutor(readers, "discovery-read")
        self._workers = ThreadPoolExecutor(workers, "discovery-decode")
        self._most_in_flight, self._fewest_in_flight = 2 * (readers + workers), workers + 1
        self._changed = threading.Condition()
        self._allowed = self._submitted = self._finished = 0
        self._is_left = False
        self._bytes_read = self._objects_read = 0
        self._is_done = bytearray(rows)
        self._done_before = 0  # all rows before this one are done
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._changed:
            self._rows, self._is_left = self._submitted, True  # nothing new
        self._readers.shutdown(cancel_futures=True)
        self._workers.shutdown(cancel_futures=True)

    def allow(self, before: int) -> None:
        """Rows under `before` may be read and worked on from now."""
        with self._changed:
            self._allowed = max(self._allowed, min(before, self._rows))
        self._start_more()

    def wait_until(self, before: int) -> None:
        """Return when all rows under `before` are done, which `allow` must have covered; raises the first error of any row."""
        started = time.perf_counter()
        with self._changed:
            while self._error is None and self._done_before < min(before, self._rows):
                self._changed.wait()
            self.seconds.wait_s += time.perf_counter() - started
            if self._error is not None:
                raise self._error

    def _start_more(self) -> None:
        with self._changed:
            start, mean, span = self._submitted, 0.0, 1
            if self._objects_read:
                mean = self._bytes_read / self._objects_read
                span = max(1, min(LONGEST_SPAN, int(SPAN_S * self._objects_read / max(self.seconds.read_s, 1e-6))))
            most = span * self._most_in_flight
            in_flight = max(self._fewest_in_flight, min(most, int(READ_AHEAD_BYTES / mean) if mean else most))
            end = min(self._allowed, self._rows)
            room = self._finished + in_flight - start
            if self._error is not None or end <= start or (room < min(span, end - start) and self._finished < start):
                return  # nothing to start, or what is under way makes room for a whole span
            self._submitted = min(end, start + max(room, 1))
            for first in range(start, self._submitted, span):
                self._readers.submit(self._do_read, range(first, min(first + span, self._submitted)))

    def _do_read(self, rows: range) -> None:
        data: list[bytes] = []
        started = time.perf_counter()
        try:
            for row in rows:
                if self._is_left:
                    return
                data.append(self._read(row))
        except BaseException as error:  # raised again where the caller waits
            self._fail(error)
            return
        with self._changed:
            self.seconds.read_s += time.perf_counter() - started
            self._bytes_read += sum(map(len, data))
            self._objects_read += len(data)
        with contextlib.suppress(RuntimeError):  # being left: nobody waits for these rows
            self._workers.submit(self._do_work, rows, data)

    def _do_work(self, rows: range, data: list[bytes]) -> None:
        started = time.perf_counter()
        try:
            for row, one in zip(rows, data, strict=True):
                if self._is_left:
                    return
                self._work(row, one)
        except BaseException as error:  # raised again where the caller waits
            self._fail(error)
            return
        with self._changed:
            self.seconds.decode_s += time.perf_counter() - started
            self._finished += len(rows)
            self._is_done[rows.start : rows.stop] = b"\x01" * len(rows)
            moved = self._done_before
            while moved < len(self._is_done) and self._is_done[moved]:
                moved += 1
            if moved > self._done_before:
                self._done_before = moved
                self._changed.notify_all()
        self._start_more()

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            if self._error is None:
                self._error = error
            self._changed.notify_all()
