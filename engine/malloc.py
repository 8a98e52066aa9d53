"""Retention of freed memory by the C library's heap.

glibc returns buffers of 32 MiB and more to the system as soon as they are freed. A loop that allocates such
buffers in every iteration then waits for the system to clear thousands of pages each time: a fifth of the
time of a logistic sweep. Other C libraries are left unchanged.
"""

import contextlib
import ctypes
import sys
from collections.abc import Iterator

#: Parameters of `mallopt`, from glibc's <malloc.h>.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
#: No separate mappings for large buffers, and no trimming of the heap below 2 GiB.
_RETAIN = {_MMAP_MAX: 0, _TRIM_THRESHOLD: (1 << 31) - 1}
#: glibc's default limit, and the thresholds it reaches by itself after large buffers were freed (mallopt(3)).
_DEFAULTS = {_MMAP_MAX: 65_536, _MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20}


@contextlib.contextmanager
def retain_freed() -> Iterator[None]:
    """Keep freed memory in the process while the body runs, and return it to the system afterwards."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        yield
        return
    _set(libc, _RETAIN)
    try:
        yield
    finally:
        _set(libc, _DEFAULTS)
        libc.malloc_trim(ctypes.c_size_t(0))


def _set(libc: ctypes.CDLL, options: dict[int, int]) -> None:
    for name, value in options.items():
        libc.mallopt(name, value)
