"""Calls of several threads done as one: for a device that is better given many things than one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

A = TypeVar("A")
B = TypeVar("B")


class Together(Generic[A, B]):
    """`call(item)` from many threads becomes `work(items)`, one at a time, of up to `most` items that were waiting.

    No thread waits for others to come: whoever has the turn takes what is there. An error of `work` on several items is found again one
    by one, so that it costs the items that cause it.
    """

    def __init__(self, work: Callable[[Sequence[A]], Sequence[B]], most: int) -> None:
        self._work, self._most = work, most
        self._waiting: deque[tuple[A, Future[B]]] = deque()
        self._turn = threading.Lock()

    def __call__(self, item: A) -> B:
        """The result for one item; raises what `work` raises for it."""
        mine: Future[B] = Future()
        self._waiting.append((item, mine))
        with self._turn:
            while not mine.done():  # all that came before this item are done first, perhaps with it
                self._run([self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))])
        return mine.result()

    def _run(self, group: list[tuple[A, Future[B]]]) -> None:
        try:
            results = self._work([item for item, _ in group])
        except Exception as error:  # of a device's library, any
            if len(group) == 1:
                group[0][1].set_exception(error)
                return
            for one in group:
                self._run([one])
            return
        for (_, future), result in zip(group, results, strict=True):
            future.set_result(result)
