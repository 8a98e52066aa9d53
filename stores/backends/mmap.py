"""One contiguous read-only array over many chunk files: each is mapped over a reserved range of addresses."""

import ctypes
import mmap
import os
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.backends import disk
from stores.backends.base import missing
from stores.errors import BankError

_PROT_NONE, _MAP_FIXED, _MAP_NORESERVE = 0x0, 0x10, 0x4000
_HUGE_PAGE = 2 << 20
_FAILED = ctypes.c_void_p(-1).value


def map_chunks(
    paths: Sequence[Path], payload: int, dtype: np.dtype[Any], tail: tuple[int, ...] = ()
) -> npt.NDArray[Any]:
    """Map the payloads of chunk files, one after another, as one read-only array.

    Linux maps the files (no copy, shared with the page cache) if each payload is a whole number of pages, or
    if there is one file only. Otherwise they are read into memory: only small banks have such chunks.

    Args:
        paths: chunk files in order; each holds `payload` bytes, then a checksum.
        payload: bytes a chunk.
        dtype: of the elements.
        tail: shape of one row.

    Returns:
        dtype [total rows, *tail], read-only. The mapping lives as long as any view of it.

    Raises:
        BankError: a file is missing or too short. MachineFault: I/O error, or no address space.
    """
    mapped = sys.platform == "linux" and (len(paths) == 1 or payload % mmap.PAGESIZE == 0) and payload > 0
    buffer = _map(paths, payload) if mapped else _read(paths, payload)
    return np.frombuffer(buffer, dtype=dtype).reshape(-1, *tail)


def _read(paths: Sequence[Path], payload: int) -> bytes:
    pieces = []
    for path in paths:
        data = disk.read_plain(path)
        if data is None:
            raise missing(path)
        if len(data) < payload:
            raise _too_short(path)
        pieces.append(memoryview(data)[:payload])
    return b"".join(pieces)


def _map(paths: Sequence[Path], payload: int) -> memoryview:
    libc = _libc()
    size = payload * len(paths)
    reserved = size + _HUGE_PAGE
    with disk.faults(paths[0].parent):
        # Reserve first: mapping a file over a reserved range cannot hit anybody else's memory.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        start = _checked(libc.mmap(None, reserved, _PROT_NONE, flags, -1, 0))
    # Where the kernel keeps files in huge pages it can map them as such only at their own alignment.
    base = -(-start // _HUGE_PAGE) * _HUGE_PAGE
    holder = (ctypes.c_char * size).from_address(base)
    weakref.finalize(holder, libc.munmap, start, reserved).atexit = False
    for index, path in enumerate(paths):
        with disk.faults(path):
            descriptor = disk.open_plain(path)
            try:
                if os.fstat(descriptor).st_size < payload:
                    raise _too_short(path)
                flags = mmap.MAP_SHARED | _MAP_FIXED
                _checked(libc.mmap(base + index * payload, payload, mmap.PROT_READ, flags, descriptor, 0))
            finally:
                os.close(descriptor)
    # Through a read-only view, so that numpy lets nobody make the array writable.
    return memoryview(holder).toreadonly()


def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]
    libc.munmap.restype = ctypes.c_int
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return libc


def _checked(address: int | None) -> int:
    if address is None or address == _FAILED:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return address


def _too_short(path: Path) -> BankError:
    return BankError(
        f"{path} is too short",
        "A chunk file holds all rows of its chunk",
        "run `embank bank repair` on the bank",
    )
