"""Reading and writing the sealed JSON documents of a bank (`stores.backends.sealed_json`)."""

from collections.abc import Mapping
from typing import Any

from stores.backends import files
from stores.backends.location import Place
from stores.backends.sealed_json import BrokenDocument, canonical, decode, digest, encode

__all__ = [
    "MAX_BYTES", "BrokenDocument", "canonical", "create", "decode", "digest", "encode", "read",
    "read_if_there", "replace",
]  # fmt: skip

#: Bytes of a sealed document: a seal of 400,000 chunks.
MAX_BYTES = 1 << 28


def read(path: Place) -> dict[str, Any]:
    """Read a sealed document and return its body. Raises BankError if it is missing or damaged."""
    return decode(files.read(path, MAX_BYTES), path)


def read_if_there(path: Place) -> dict[str, Any] | None:
    """Read as `read` does, but return None where there is no file."""
    data = files.read_if_there(path, MAX_BYTES)
    return None if data is None else decode(data, path)


def create(path: Place, body: Mapping[str, Any], temp: Place) -> bool:
    """Create a sealed document exclusively and durably. False if something is there already."""
    created = files.create(path, encode(body), temp)
    files.sync_directory(path.parent)
    return created


def replace(path: Place, body: Mapping[str, Any], temp: Place) -> None:
    """Write a sealed document at `path` atomically. Only for what may change: caches, notes about a run."""
    files.replace(path, encode(body), temp)
