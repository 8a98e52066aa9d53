"""Registry of backends: the only code that depends on the kind of a path."""

import functools
from typing import Any

from stores.backends.base import Backend
from stores.backends.local import LocalBackend
from stores.backends.location import SCHEMES, ObjectPath, Place

_LOCAL = LocalBackend()
#: Backends that were registered, by the scheme of their URLs.
_BY_SCHEME: dict[str, Backend[ObjectPath]] = {}


def register(scheme: str, backend: Backend[ObjectPath]) -> None:
    """Let a backend serve every place whose URL has this scheme, such as `mem://NAME/PREFIX`.

    From then on `location.place` takes such URLs. Register before a place is named, in every process.
    """
    SCHEMES.add(scheme)
    _BY_SCHEME[scheme] = backend


def backend_of(place: Place) -> Backend[Any]:
    """Return the backend that serves a path of this machine, or a URL."""
    if not isinstance(place, ObjectPath):
        return _LOCAL
    return _BY_SCHEME.get(place.scheme) or _objects()


@functools.cache
def _objects() -> Backend[ObjectPath]:
    # Imported late: a bank on disk needs no object store.
    from stores.backends.object_store import ObjectBackend

    return ObjectBackend()
