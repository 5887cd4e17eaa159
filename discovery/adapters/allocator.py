"""Keeps freed memory in the process: torch's activations are tens of megabytes, and mapping them anew costs more than computing.

glibc gives blocks above 128 KiB back to the kernel when they are freed, and Dask's nanny asks for even less to be kept
(MALLOC_TRIM_THRESHOLD_=65536). Each layer of a forward pass on a CPU then faults its pages in again. A thread has an arena of its
own besides, which maps every block above 64 MiB whatever it is told; Dask runs work in a thread, so our workers start with
ONE_ARENA (docs/decisions/0014-what-bounds-embedding.md). Forward passes of lite0 took 0.49 of the time with freed memory kept
(benchmarks/results/allocator.txt).
"""

from __future__ import annotations

import ctypes
import functools

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
KEEP_BYTES = 2**31 - 1
ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}  # glibc reads it before any thread is there, so it is set before the process starts


@functools.cache
def keep_freed_memory() -> bool:
    """Ask glibc to serve large blocks from the heap and to keep what is freed; whether this libc has the call."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False  # another libc
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, KEEP_BYTES))
