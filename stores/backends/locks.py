"""Locks between processes: one coordinator a feature, many committers, one clean-up.

These functions take a path; `stores.backends.base.Backend` documents them.
"""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager

from stores.backends.base import Lock
from stores.backends.location import Place
from stores.backends.registry import backend_of


def held(path: Place, *, shared: bool = False, patience: float = 60.0) -> AbstractContextManager[Lock]:
    """Hold a lock for the body of a `with`, shared or alone. Raises BankError if others do not let go."""
    return backend_of(path).hold(path, shared=shared, patience=patience)


def coordinate(path: Place, what: str) -> Lock:
    """Become the one coordinator of `what`. Raises Refused, naming the holder, if there is one already."""
    return backend_of(path).coordinate(path, what)


@contextlib.contextmanager
def coordinating(path: Place, what: str) -> Iterator[None]:
    """Hold the coordination of `what` for the body. Raises as `coordinate`."""
    lock = coordinate(path, what)
    try:
        yield
    finally:
        lock.unsign()
        lock.release()


def refuse_taken(path: Place, what: str) -> None:
    """Raise Refused if somebody coordinates `what` at this moment; changes nothing."""
    backend_of(path).refuse_taken(path, what)
