"""The C library's heap, told to keep for a while what is freed.

glibc gives buffers of 32 MiB and more back to the system as soon as they are freed. A loop that makes such
buffers anew in every turn then waits for the system to clear their pages, thousands of them, again and again:
a fifth of a logistic sweep. On other C libraries nothing is changed.
"""

import contextlib
import ctypes
import sys
from collections.abc import Iterator

#: `mallopt`'s names for what it sets, from glibc's <malloc.h>.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
#: No buffer of its own from the system, and no end of the heap given back below 2 GiB.
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: (1 << 31) - 1}
#: glibc's first limit, and the thresholds that it arrives at once large buffers were freed (mallopt(3)).
_USUAL = {_MMAP_MAX: 65_536, _MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20}


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """While it lasts, freed memory stays with the process; then what is free is given back."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        yield
        return
    _set(libc, _KEEP)
    try:
        yield
    finally:
        _set(libc, _USUAL)
        libc.malloc_trim(ctypes.c_size_t(0))


def _set(libc: ctypes.CDLL, options: dict[int, int]) -> None:
    for name, value in options.items():
        libc.mallopt(name, value)
