"""Sealed JSON: documents that carry their own digest, so that no single flipped bit goes unnoticed."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from stores.backends import files
from stores.backends.location import Place
from stores.errors import BankError

_DIGEST = "sha256"
#: Bytes of a sealed document: a seal of 400,000 chunks.
MAX_BYTES = 1 << 28
#: Levels of objects and lists: more than any document has, and fewer than trouble whoever goes through them.
_DEPTH = 32


class BrokenDocument(BankError):
    """A sealed document whose bytes are not what was written."""


def canonical(value: Any) -> bytes:
    """The one encoding of a JSON value: sorted keys, no spaces, ASCII, a final newline."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def digest(body: Mapping[str, Any]) -> str:
    """SHA-256, in hex, of a body's canonical JSON."""
    return hashlib.sha256(canonical(body)).hexdigest()


def encode(body: Mapping[str, Any]) -> bytes:
    """The sealed document of `body`: its canonical JSON with the digest of itself as member `sha256`."""
    if _DIGEST in body:
        raise ValueError(f"The member {_DIGEST!r} is reserved")
    return canonical({**body, _DIGEST: digest(body)})


def decode(data: bytes, path: Place) -> dict[str, Any]:
    """The body of a sealed document.

    The bytes must equal the canonical encoding of what they say: a digest over parsed values alone would let
    changes in spacing or spelling pass.

    Raises:
        BrokenDocument: anything but the bytes that `encode` made.
    """
    try:
        if not data.startswith(b"{"):
            raise ValueError  # a file of anything else may be large
        body = json.loads(data)
        if isinstance(body, dict) and body.pop(_DIGEST, None) and encode(body) == data and _is_flat(body):
            return body
    except (ValueError, TypeError, RecursionError):
        pass
    raise BrokenDocument(
        f"{path} is damaged",
        "A sealed document must match its own SHA-256",
        "run `embank bank repair` on the bank",
    )


def _is_flat(body: Any) -> bool:
    """Whether a value has no more levels than a document may have."""
    level = [body]
    for _ in range(_DEPTH):
        holders = [each for each in level if isinstance(each, dict | list)]
        level = [inner for each in holders for inner in (each.values() if isinstance(each, dict) else each)]
        if not level:
            return True
    return False


def read(path: Place) -> dict[str, Any]:
    """The body of the sealed document at `path`. Raises BankError if it is missing or damaged."""
    return decode(files.read(path, MAX_BYTES), path)


def read_if_there(path: Place) -> dict[str, Any] | None:
    """As `read`, but None where there is no file."""
    data = files.read_if_there(path, MAX_BYTES)
    return None if data is None else decode(data, path)


def create(path: Place, body: Mapping[str, Any], temp: Place) -> bool:
    """Create a sealed document exclusively and durably. False if something is there already."""
    created = files.create(path, encode(body), temp)
    files.sync_directory(path.parent)
    return created


def replace(path: Place, body: Mapping[str, Any], temp: Place) -> None:
    """Put a sealed document at `path` atomically. Only for what may change: caches and notes about a run."""
    files.replace(path, encode(body), temp)
