"""The smallest backend: a dictionary. It shows what a third backend has to write, and proves the suite."""

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from stores.backends import registry
from stores.backends.base import Backend, Lock, StoredFile, missing, too_large
from stores.backends.location import SCHEMES, ObjectPath
from stores.errors import BankError, Refused
from tests.contracts.backend_suite import Storage

SCHEME = "mem"


@dataclass(frozen=True)
class State:
    st_size: int


class MemoryBackend(Backend[ObjectPath]):
    """Files of this process.

    Attributes:
        before: called ahead of every step; may raise.
    """

    parallel_reads = 4

    def __init__(self) -> None:
        self.files: dict[ObjectPath, bytes] = {}
        self.before: Callable[[], None] = lambda: None
        self._turn = threading.Lock()
        self.holders: dict[ObjectPath, list[MemoryLock]] = {}

    def read_if_there(self, path: ObjectPath, most: int | None = None) -> bytes | None:
        self.before()
        data = self.files.get(path)
        if data is not None and most is not None and len(data) > most:
            raise too_large(path, len(data), most)
        return data

    def read_range(self, path: ObjectPath, start: int, length: int) -> bytes:
        self.before()
        if path not in self.files:
            raise missing(path)
        return self.files[path][start : start + length]

    def digest(self, path: ObjectPath, expected: int | None = None) -> tuple[int, str] | None:
        data = self.read_if_there(path)
        return None if data is None else (len(data), hashlib.sha256(data).hexdigest())

    def stat_if_there(self, path: ObjectPath) -> State | None:
        data = self.read_if_there(path)
        return None if data is None else State(len(data))

    def names(self, folder: ObjectPath) -> list[str]:
        start = len(folder.key) + 1
        return sorted({path.key[start:].partition("/")[0] for path in self.tree(folder)[0]})

    def tree(self, folder: ObjectPath) -> tuple[list[ObjectPath], list[ObjectPath]]:
        self.before()
        return [path for path in list(self.files) if folder in path.parents], []

    def inventory(self, folder: ObjectPath) -> list[StoredFile]:
        return [StoredFile(path, len(self.files[path]), time.time()) for path in self.tree(folder)[0]]

    def create(self, path: ObjectPath, data: bytes | memoryview, temp: ObjectPath) -> bool:
        self.before()
        with self._turn:
            if path in self.files:
                return False
            self.files[path] = bytes(data)
            return True

    def replace(self, path: ObjectPath, data: bytes, temp: ObjectPath) -> None:
        self.before()
        self.files[path] = data

    def move(self, source: ObjectPath, target: ObjectPath) -> bool:
        data = self.read_if_there(source)
        if data is None:
            return False
        self.replace(target, data, target)
        self.remove(source)
        return True

    def remove(self, path: ObjectPath) -> None:
        self.before()
        self.files.pop(path, None)

    def coordinate(self, path: ObjectPath, what: str) -> Lock:
        if (lock := self._try(path, shared=False)) is None:
            raise Refused(f"{what} is being written by process {os.getpid()}", "One at a time", "wait")
        return lock

    @contextlib.contextmanager
    def hold(self, path: ObjectPath, *, shared: bool = False, patience: float = 60.0) -> Iterator[Lock]:
        deadline = time.monotonic() + patience
        while (lock := self._try(path, shared)) is None:
            if time.monotonic() > deadline:
                raise BankError(f"{path} is locked by another process", "Writers take turns", "wait")
            time.sleep(0.01)
        try:
            yield lock
        finally:
            lock.release()

    def _try(self, path: ObjectPath, shared: bool) -> "MemoryLock | None":
        with self._turn:
            holders = self.holders.setdefault(path, [])
            if holders and not (shared and all(lock.shared for lock in holders)):
                return None
            holders.append(lock := MemoryLock(holders, shared))
            return lock


class MemoryLock:
    def __init__(self, holders: "list[MemoryLock]", shared: bool) -> None:
        self.holders, self.shared = holders, shared

    def alive(self) -> bool:
        return self in self.holders

    def release(self) -> None:
        with contextlib.suppress(ValueError):
            self.holders.remove(self)

    def unsign(self) -> None:
        """Nothing: the lock names nobody."""


@contextlib.contextmanager
def registered(backend: Backend[ObjectPath]) -> Iterator[None]:
    """Let a backend serve `mem://` for the body."""
    registry.register(SCHEME, backend)
    try:
        yield
    finally:
        SCHEMES.discard(SCHEME)
        registry._BY_SCHEME.pop(SCHEME)


class Died(BaseException):
    """The process ends here."""


class MemoryStorage(Storage):
    """A registered `MemoryBackend` that dies and fails on demand."""

    root = ObjectPath(SCHEME, "test", "folder")
    faults = ("fault",)

    def __init__(self, memory: MemoryBackend) -> None:
        self.memory = memory

    @contextlib.contextmanager
    def _striking(self, strike: Callable[[int], None]) -> Iterator[None]:
        self.count = 0

        def before() -> None:
            self.count += 1
            strike(self.count)

        self.memory.before = before
        try:
            yield
        finally:
            self.memory.before = lambda: None

    def steps(self, work: Callable[[], object]) -> int:
        with self._striking(lambda count: None):
            work()
        return self.count

    def kill(self, work: Callable[[], object], at: int) -> None:
        def die(count: int) -> None:
            if count >= at:
                raise Died

        with contextlib.suppress(Died), self._striking(die):
            work()

    def failing(self, at: int, kind: str) -> contextlib.AbstractContextManager[object]:
        def fail(count: int) -> None:
            if count == at:
                raise BankError(kind, "Memory never fails", "run it again")

        return self._striking(fail)

    def abandon(self, path: ObjectPath) -> None:  # type: ignore[override]
        self.memory.coordinate(path, "it")
        self.memory.holders.clear()
