"""Sealed JSON: a document that carries its own SHA-256, so that no single flipped bit goes unnoticed."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from stores.backends.location import Place
from stores.errors import BankError

_DIGEST = "sha256"
#: Most levels of objects and lists: more than any document has, and few enough for recursion.
_DEPTH = 32


class BrokenDocument(BankError):
    """A sealed document whose bytes are not what was written."""


def canonical(value: Any) -> bytes:
    """Encode a JSON value in the one way: sorted keys, no spaces, ASCII, a final newline."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def digest(body: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hex, of a body's canonical JSON."""
    return hashlib.sha256(canonical(body)).hexdigest()


def encode(body: Mapping[str, Any]) -> bytes:
    """Encode a sealed document: canonical JSON with the digest of the rest as member `sha256`."""
    if _DIGEST in body:
        raise ValueError(f"The member {_DIGEST!r} is reserved")
    return canonical({**body, _DIGEST: digest(body)})


def decode(data: bytes, path: Place) -> dict[str, Any]:
    """Decode a sealed document and return its body.

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
        "A bank's document must match the SHA-256 that it states",
        "run `embank bank repair` on the bank",
    )


def _is_flat(body: Any) -> bool:
    """Return whether a value has no more levels than a document may have."""
    level = [body]
    for _ in range(_DEPTH):
        holders = [value for value in level if isinstance(value, dict | list)]
        level = [
            inner for value in holders for inner in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return True
    return False
