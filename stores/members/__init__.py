"""Images inside other files, named by uris of the form `FILE!/MEMBER`.

    shard-000.tar!/0001.png         a file in an uncompressed TAR archive
    images.zip!/train/cat/7.jpg     a file in a ZIP archive (stored or deflated)
    pathmnist.npz!/test_images/17   a row of an array [n, height, width(, 3)] of a NumPy archive, as PNG
    data_batch_1!/17                an image of a CIFAR-10 batch, as PNG
    8622.mha!/slice/0.5             a slice of a MetaImage volume: its number, or its place in the depth

Reading a member gives the bytes of an ordinary image file, so that limits, checks, digests and decoders
are the same for all images. Nothing is unpacked to disk, a member's name never becomes a path, and no code
in a pickle is run. FILE is known by its name; a folder called `x.zip!` cannot be told from an archive.
"""

import hashlib
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from stores.folders import sha256_of
from stores.members.batches import CifarBatch
from stores.members.npz import Npz
from stores.members.parts import MemberError
from stores.members.tars import Tar
from stores.members.volumes import Volume
from stores.members.zips import Zip

__all__ = ["Container", "Containers", "MemberError", "digest", "names", "split"]
#: What `digest` may unpack.
_MAX_BYTES = 1 << 30

_MEMBER = re.compile(
    r"(?P<file>(?:.*?\.(?P<suffix>zip|tar|npz|mha)|(?:.*?/)?(?P<batch>data_batch_[1-5]|test_batch)))!/(?P<member>.+)",
    re.IGNORECASE | re.DOTALL,
)


class Container(Protocol):
    """The index of one file's members. Safe to share between threads."""

    def size(self, member: str) -> int:
        """Bytes of a member; of an array's row or a slice, its samples alone.

        Raises:
            MemberError: there is none of that name.
        """
        ...

    def read(self, file: int, member: str, max_bytes: int) -> bytes:
        """A member's bytes, of at most `max_bytes`.

        Args:
            file: descriptor of the container, opened anew or not.

        Raises:
            MemberError: codes missing, too_large, truncated, corrupt, undecodable.
            OSError: the container cannot be read.
        """
        ...


_OPENERS: dict[str, Callable[[int], Container]] = {
    "zip": Zip, "tar": Tar, "npz": Npz, "mha": Volume, "batch": CifarBatch,
}  # fmt: skip


def split(uri: str) -> tuple[str, str]:
    """(the file's path, the member's name in it; empty if the uri names a whole file)."""
    found = _MEMBER.fullmatch(uri) if "!/" in uri else None
    return (found["file"], found["member"]) if found else (uri, "")


class Containers:
    """Indexes of the containers last used; the files themselves are not held open.

    Args:
        kept: how many. An index is used as long as the file's identity, size and time stay the same.
    """

    def __init__(self, kept: int = 64) -> None:
        self._kept = kept
        self._found: OrderedDict[tuple[int, ...], Container | MemberError] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return Containers, (self._kept,)

    def of(self, file: int, path: str) -> Container:
        """The index of an opened container.

        Args:
            file: its descriptor.
            path: its name, which says what it is.

        Raises:
            MemberError: codes corrupt, truncated, too_large, undecodable: it is not what its name says.
            OSError: it cannot be read.
        """
        state = os.fstat(file)
        key = state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns
        with self._lock:  # indexing once serves all who wait
            found = self._found.pop(key, None)
            if found is None:
                found = _opened(file, path)
            self._found[key] = found
            while len(self._found) > self._kept:
                self._found.popitem(last=False)
        if isinstance(found, MemberError):
            raise MemberError(found.code, found.detail)
        return found


def _opened(file: int, path: str) -> Container | MemberError:
    try:
        return _OPENERS[_kind(path)](file)
    except MemberError as error:
        return error.with_traceback(None)


def _kind(path: str) -> str:
    found: Any = _MEMBER.fullmatch(f"{path}!/-")
    return found["suffix"].lower() if found["suffix"] else "batch"


def digest(containers: Containers, path: Path, member: str) -> str | None:
    """SHA-256 of a member's bytes in hex, of the whole file's without one; None if they cannot be read."""
    if not member:
        return sha256_of(path)
    try:
        with path.open("rb", buffering=0) as stream:
            data = containers.of(stream.fileno(), str(path)).read(stream.fileno(), member, _MAX_BYTES)
    except (MemberError, OSError):
        return None
    return hashlib.sha256(data).hexdigest()


def names(path: str | os.PathLike[str]) -> list[str]:
    """Names of the files in a ZIP or TAR archive, in its order, folders and links left out.

    Raises:
        MemberError: as `Containers.of`.
        OSError: it cannot be read.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        archive = (Tar if str(path).lower().endswith(".tar") else Zip)(file)
        return list(archive.entries)
    finally:
        os.close(file)
