"""Checks of files against their promised digests, and a cache that saves repeating them.

A stamp is (size, mtime, ctime, inode) of a file whose SHA-256 was found right. As long as the stamp holds,
nobody has written to the file; decay of the medium below the file system is found by
`stores.maintenance.verify`, which trusts no stamp. Stamps lie in a folder of this user's own
(`stores.backends.private`) and not in the bank: whoever can write to the bank, or
made it elsewhere, could otherwise vouch for bytes that the seal does not promise.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypedDict

from stores.backends import deadlines, files, private
from stores.backends.base import Stamp
from stores.backends.location import Place
from stores.backends.registry import backend_of
from stores.bank import documents
from stores.errors import BankError, EmbankError


class FilePromise(TypedDict):
    """The promise of a marker or seal about a file: its size, and its SHA-256 in hex."""

    size: int
    sha256: str


#: Relative path -> what is promised of the file, as in markers and seals.
Promises = Mapping[str, FilePromise]
#: A file changed more recently is not stamped: a second change could fall into the same tick of the clock.
SETTLED_NS = 2_000_000_000


def find_broken(
    root: Place, promises: Promises, progress: Callable[[int, int], None] | None = None
) -> dict[str, str]:
    """Read every promised file, in threads (hashing releases the interpreter).

    Args:
        progress: called with (files read, files in all) after each file.

    Returns:
        Relative path -> what is wrong, for the files that are missing or differ.
    """
    broken: dict[str, str] = {}
    if not promises:
        return broken
    backend = backend_of(root)

    def state_of(path: str) -> tuple[int, str] | None:
        return backend.digest(root / path, promises[path]["size"])

    states = deadlines.at_once(backend.parallel_reads, state_of, promises)
    for count, (path, state) in enumerate(zip(promises, states, strict=True), 1):
        if reason := difference(state, promises[path]):
            broken[path] = reason
        if progress is not None:
            progress(count, len(promises))
    return broken


def difference(state: tuple[int, str] | None, promise: FilePromise) -> str:
    """Say what is wrong with a file of this size and SHA-256; empty if nothing is."""
    if state is None:
        return "missing"
    if state[0] != promise["size"]:
        return f"{state[0]} bytes instead of {promise['size']}"
    return "" if state[1] == promise["sha256"] else "content differs from its SHA-256"


def promise_of(data: bytes | memoryview) -> FilePromise:
    """Return what a marker or seal says of a file with these bytes."""
    return {"size": memoryview(data).nbytes, "sha256": hashlib.sha256(data).hexdigest()}


def ensure(
    root: Place,
    feature: str,
    seal: bytes,
    promises: Promises,
    mend: Callable[[Iterable[str]], None] | None = None,
) -> None:
    """Make sure of every file of a sealed feature before use; re-read those without a valid stamp.

    Args:
        seal: bytes of the seal that holds the promises; stamps are good for this seal only.
        mend: puts what is missing or damaged in its place again, checked; for copies.

    Raises:
        BankError: a file is missing or damaged; the message names the feature and the chunk.
    """
    known = _load(root, feature, seal)
    now = files.stamps(root, promises)
    doubtful = _differing(promises, known, now)
    if not doubtful:
        return
    broken = find_broken(root, doubtful)
    if broken and mend is not None:
        mend(broken)
        now = files.stamps(root, promises)
    elif broken:
        path, reason = next(iter(broken.items()))
        others = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        raise damaged(feature, path, f"{reason}{others}", f"run `embank bank repair {root}`")
    remember(root, feature, seal, {**known, **now})


def damaged(feature: str, path: str, reason: str, remedy: str) -> BankError:
    """Return the error that names a damaged file of a sealed feature by its relative path."""
    return BankError(
        f"{describe(path)} of feature {feature} is damaged: {path}: {reason}",
        "Nothing is evaluated that differs from what was written",
        remedy,
    )


def unverified(
    root: Place, feature: str, seal: bytes, promises: Promises, now: Mapping[str, Stamp | None]
) -> Promises:
    """Select the files of a sealed feature that have no valid stamp; `now` are their present stamps."""
    return _differing(promises, _load(root, feature, seal), now)


def _differing(
    promises: Promises, known: Mapping[str, Stamp], now: Mapping[str, Stamp | None]
) -> dict[str, FilePromise]:
    return {
        path: promise
        for path, promise in promises.items()
        if now[path] is None or known.get(path) != now[path]
    }


def describe(path: str) -> str:
    """Name a file for messages: `Chunk 3` for a chunk's file or marker, else `A file`."""
    index = chunk_index(path)
    return "A file" if index is None else f"Chunk {index}"


def chunk_index(path: str) -> int | None:
    """Return the chunk to which a relative path belongs; None if it is of no chunk file or marker."""
    parts = path.split("/")
    number = parts[3].removesuffix(".json") if len(parts) > 3 and (parts[2] in ("c", "markers")) else ""
    return int(number) if number.isdecimal() else None


def remember(root: Place, feature: str, seal: bytes, stamps: Mapping[str, Stamp | None]) -> None:
    """Keep stamps, taken before the files were found right; nothing for a user without a folder for them."""
    path = _stamps_file(root, feature)
    if path is None:
        return
    settled = time.time_ns() - SETTLED_NS
    good = {path: stamp for path, stamp in stamps.items() if stamp is not None and max(stamp[1:3]) < settled}
    body = {"seal": hashlib.sha256(seal).hexdigest(), "files": good}
    with contextlib.suppress(OSError):
        private.write(path, documents.encode(body))


def _stamps_file(root: Place, feature: str) -> Path | None:
    if not backend_of(root).has_stamps or (folder := private.state_folder("stamps")) is None:
        return None
    name = hashlib.sha256(os.fsencode(f"{os.path.realpath(str(root))}\0{feature}")).hexdigest()
    return folder / f"{name}.json"


def _load(root: Place, feature: str, seal: bytes) -> dict[str, Stamp]:
    path = _stamps_file(root, feature)
    data = None if path is None else private.read(path)
    if path is None or data is None:
        return {}
    try:
        body = documents.decode(data, path)
    except EmbankError:
        return {}
    stamps = body.get("files") if body.get("seal") == hashlib.sha256(seal).hexdigest() else {}
    return stamps if isinstance(stamps, dict) else {}
