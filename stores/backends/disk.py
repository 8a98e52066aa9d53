"""File system calls that several parts of the local backend make.

Each call can be made to fail in a test, which puts another `os` into this module, `local` and `flock`.
Trouble becomes a `MachineFault` (disk full, I/O error) or a `BankError` (no permission, file gone).
"""

# Low-level calls on purpose: they are the points at which the tests inject faults.
# ruff: noqa: PTH108

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from stores.backends.base import needed, too_large
from stores.backends.location import Place
from stores.errors import BankError, EmbankError, MachineFault, PathRefused

#: Bytes that are read at a time.
BLOCK = 4 << 20


def translate(error: OSError, path: Place) -> EmbankError:
    """Return the user's view of an operating system error met at `path`."""
    reason = error.strerror or type(error).__name__
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return BankError(
            f"{path}: {reason}",
            "The bank must be writable here",
            "give this user write permission, or copy it",
        )
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
        return needed(path, reason)
    if error.errno == errno.ELOOP:
        return _no_plain_file(path, "a link")
    remedy = "run the same command again once the cause is gone; committed chunks are kept"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free space, then run the same command again; committed chunks are kept"
    return MachineFault(f"{path}: {reason}", "The disk must take and give back what the bank stores", remedy)


@contextlib.contextmanager
def faults(path: Place) -> Iterator[None]:
    """Translate operating system errors of the body (`translate`)."""
    try:
        yield
    except OSError as error:
        raise translate(error, path) from error


_PLAIN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_KINDS = (
    (stat.S_ISLNK, "a link"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip


def open_plain(path: Path) -> int:
    """Open a bank's file for reading and return its descriptor.

    Its type is checked first: opening a FIFO or a device can block or act, and a link leads elsewhere.

    Raises:
        PathRefused: it is a link or a special file. OSError: it cannot be opened.
    """
    refuse_special(path, os.lstat(path))
    descriptor = os.open(path, _PLAIN)
    try:
        refuse_special(path, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def refuse_special(path: Path, state: os.stat_result) -> None:
    """Raise PathRefused for a link or a special file."""
    for test, kind in _KINDS:
        if test(state.st_mode):
            raise _no_plain_file(path, kind)


def _no_plain_file(path: Place, kind: str) -> PathRefused:
    return PathRefused(
        f"{path} is {kind}",
        "The files of a bank are plain files",
        "remove it; `embank bank verify` then says what is missing, and `embank bank repair` restores it",
    )


def read_plain(path: Path, most: int | None = None) -> bytes | None:
    """Read a plain file, as `Backend.read_if_there`."""
    with faults(path):
        try:
            descriptor = open_plain(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            size = os.fstat(descriptor).st_size
            if most is not None and size > most:
                raise too_large(path, size, most)
            return _read_descriptor(descriptor)
        finally:
            os.close(descriptor)


def _read_descriptor(descriptor: int) -> bytes:
    pieces = []
    while piece := os.read(descriptor, BLOCK):
        pieces.append(piece)
    return b"".join(pieces)


_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def write_new(path: Path, data: bytes | memoryview) -> None:
    """Create `path`, which must not exist, and fsync its bytes. Interrupted, it leaves a torn file."""
    with faults(path):
        _fill(os.open(path, _NEW, 0o666), data)


def create_new(path: Path, data: bytes | memoryview) -> bool:
    """Create `path` as `write_new` does, and return True; return False where something is there."""
    with faults(path):
        try:
            descriptor = os.open(path, _NEW, 0o666)
        except FileExistsError:
            return False
        _fill(descriptor, data)
        return True


def _fill(descriptor: int, data: bytes | memoryview) -> None:
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def discard(path: Path) -> None:
    """Remove a temporary on the way out of trouble; a leftover is the next start's to remove."""
    with contextlib.suppress(OSError):
        os.unlink(path)
