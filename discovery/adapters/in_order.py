"""Work of several threads in the order it was given, with a bound on how much is under way or waits to be taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(work: Callable[[T], R], items: Sequence[T], sizes: Sequence[int], threads: int, most_bytes: int) -> Iterator[R]:
    """`work` of each item, in order. Items under way or done and not yet taken have `most_bytes` by their sizes together, and one may have more alone.

    Closing it early, or an error, waits for what runs and starts nothing more.
    """
    waiting: deque[tuple[Future[R], int]] = deque()
    held = 0
    pool = ThreadPoolExecutor(threads, "discovery-export")
    try:
        for item, size in zip(items, sizes, strict=True):
            while waiting and (len(waiting) >= 4 * threads or held + size > most_bytes):
                done, freed = waiting.popleft()
                yield done.result()
                held -= freed
            waiting.append((pool.submit(work, item), size))
            held += size
        while waiting:
            yield waiting.popleft()[0].result()
    finally:
        pool.shutdown(cancel_futures=True)
