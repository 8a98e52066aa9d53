"""A bank below a prefix in a bucket of an object store.

An object appears whole or not at all, under its own name and at once for everybody: there are no temporaries,
folders or syncs. Exclusive creation is the store's own (`If-None-Match: *`); locks are leases
(`stores.backends.leases`). Each method is one request or few (`stores.backends.object_requests`).
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TypeVar

from stores.backends import deadlines, leases, object_requests
from stores.backends.base import Backend, Lock, StoredFile, missing
from stores.backends.location import ObjectPath

Item = TypeVar("Item")
Result = TypeVar("Result")


class ObjectBackend(Backend[ObjectPath]):
    """Objects of Amazon S3 and what speaks its protocol, Google Cloud Storage or Azure Blob Storage."""

    @property
    def parallel_reads(self) -> int:
        return object_requests.THREADS

    def read_if_there(self, path: ObjectPath, most: int | None = None) -> bytes | None:
        return object_requests.read_if_there(path, most)

    def read_range(self, path: ObjectPath, start: int, length: int) -> bytes:
        data = object_requests.read_range(path, start, length)
        if data is None:
            raise missing(path)
        return data

    def digest(self, path: ObjectPath, expected: int | None = None) -> tuple[int, str] | None:
        # The size arrives with the bytes: asking for it first would be a request more for every sound object.
        return object_requests.digest(path)

    def stat_if_there(self, path: ObjectPath) -> object_requests.State | None:
        return object_requests.stat_if_there(path)

    def names(self, folder: ObjectPath) -> list[str]:
        return object_requests.names(folder)

    def tree(self, folder: ObjectPath) -> tuple[list[ObjectPath], list[ObjectPath]]:
        return list(object_requests.tree(folder)), []

    def inventory(self, folder: ObjectPath) -> list[StoredFile]:
        states = object_requests.tree(folder)
        return [StoredFile(path, state.st_size, state.modified) for path, state in states.items()]

    def create(self, path: ObjectPath, data: bytes | memoryview, temp: ObjectPath) -> bool:
        return object_requests.create(path, data)

    def replace(self, path: ObjectPath, data: bytes, temp: ObjectPath) -> None:
        object_requests.replace(path, data)

    def move(self, source: ObjectPath, target: ObjectPath) -> bool:
        return object_requests.move(source, target)

    def remove(self, path: ObjectPath) -> None:
        object_requests.remove(path)

    def each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        return list(deadlines.at_once(object_requests.THREADS, function, items))

    def coordinate(self, path: ObjectPath, what: str) -> Lock:
        return leases.coordinate(path, what)

    def hold(
        self, path: ObjectPath, *, shared: bool = False, patience: float = 60.0
    ) -> AbstractContextManager[Lock]:
        """Hold a lease for the body, waiting for it as long as a lease lasts and then `patience` seconds."""
        return leases.held(path, shared=shared, patience=patience)
