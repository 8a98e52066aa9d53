"""Locks of the local backend: flock, which the kernel releases when its holder ends, however it ends."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from stores.backends import disk
from stores.errors import BankError, Refused

_POLL_SECONDS = 0.05


class Lock:
    """A held flock, which ends with its process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self._descriptor = path, descriptor
        _held.add(self)

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            _held.discard(self)
            with contextlib.suppress(OSError):  # The descriptor is gone, and the lock with it, all the same.
                os.close(descriptor)

    def alive(self) -> bool:
        """Return True: a flock lasts as long as its holder."""
        return True

    def sign(self) -> None:
        """Write this process's number into the lock file, for messages of others that find it taken."""
        with disk.faults(self.path):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode("ascii"), 0)

    def unsign(self) -> None:
        """Remove this process's number from the lock file."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)


_held: set[Lock] = set()


def _forget_in_child() -> None:
    # A forked child shares the lock's open file: kept there, it would hold the lock after the parent's death.
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_forget_in_child)


def _try(path: Path, mode: int) -> Lock | None:
    with disk.faults(path):
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
        descriptor = os.open(path, flags, 0o666)
        try:
            disk.refuse_special(path, os.fstat(descriptor))
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
    return Lock(path, descriptor)


@contextlib.contextmanager
def held(path: Path, *, shared: bool = False, patience: float = 60.0) -> Iterator[Lock]:
    """Hold a lock for the body, waiting at most `patience` seconds for it. Raises BankError after that."""
    mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    deadline = time.monotonic() + patience
    while (lock := _try(path, mode)) is None:
        if time.monotonic() > deadline:
            raise BankError(
                f"{path} is locked by another process",
                "Writers of a bank take turns",
                "wait for the other process, or stop it, and run the same command again",
            )
        time.sleep(_POLL_SECONDS)
    try:
        yield lock
    finally:
        lock.release()


def refuse_taken(path: Path, what: str) -> None:
    """Raise Refused if somebody holds the lock file at `path`, which exists; changes nothing."""
    lock = _try(path, fcntl.LOCK_EX)
    if lock is None:
        raise _taken(path, what)
    lock.release()


def _taken(path: Path, what: str) -> Refused:
    holder = (disk.read_plain(path) or b"").decode("ascii", "replace").strip() or "unknown"
    return Refused(
        f"{what} is being written by process {holder}",
        "One run at a time writes a feature",
        f"wait for process {holder} to end, or stop it (committed chunks are kept); then run this again",
    )


def coordinate(path: Path, what: str) -> Lock:
    """Become the one coordinator of `what`. Raises Refused, naming the holder, if there is one already."""
    lock = _try(path, fcntl.LOCK_EX)
    if lock is None:
        raise _taken(path, what)
    try:
        lock.sign()
    except BaseException:
        lock.release()
        raise
    return lock
