"""A budget of bytes that threads share: each waits until what it wants to hold fits beside what the others hold."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class ByteBudget:
    """At most `limit` bytes are held together; one holder alone may always pass, whatever its size.

    Nobody may wait for a second share while the first can only be given back after it: that would wait for ever.
    """

    limit: int
    held: int = 0  # now
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, size: int) -> None:
        """Wait until `size` more bytes fit. Any thread may give them back."""
        with self._turn, self._changed:  # one waits at a time, so that small ones do not overtake a large one for ever
            self._changed.wait_for(lambda: self.held == 0 or self.held + size <= self.limit)
            self.held += size

    def give_back(self, size: int) -> None:
        """What was taken."""
        with self._changed:
            self.held -= size
            self._changed.notify_all()

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Take, and give back at the end."""
        self.take(size)
        try:
            yield
        finally:
            self.give_back(size)
