"""An object of a known size as a file to read from, of which only what is asked for is fetched."""

from __future__ import annotations

import io
from collections.abc import Callable

TAIL_BYTES = 65_536  # fetched with the first look at the end, where Parquet keeps its table of contents


class RangeFile(io.RawIOBase):
    """Seekable and readable; `fetch(start, end)` gives bytes. The end of the file is fetched once, and kept."""

    def __init__(self, fetch: Callable[[int, int], bytes], size_bytes: int) -> None:
        self._fetch, self._size, self._place = fetch, size_bytes, 0
        self._tail_start, self._tail = size_bytes, b""

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Bytes before the place that is read next."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, as io's do."""
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def read(self, size: int | None = -1) -> bytes:
        """The next `size` bytes, fewer at the end."""
        start = min(self._place, self._size)
        end = self._size if size is None or size < 0 else min(self._size, start + size)
        self._place = end
        if end <= start:
            return b""
        if not self._tail and end > self._size - TAIL_BYTES:
            self._tail_start = max(0, self._size - TAIL_BYTES)
            self._tail = self._fetch(self._tail_start, self._size)
        if start >= self._tail_start:
            return self._tail[start - self._tail_start : end - self._tail_start]
        return self._fetch(start, end)
