"""Images inside other files, named by uris of the form `FILE!/MEMBER`.

    shard-000.tar!/0001.png         a file in an uncompressed TAR archive
    images.zip!/train/cat/7.jpg     a file in a ZIP archive (stored or deflated)
    pathmnist.npz!/test_images/17   a row of an array [n, height, width(, 3)] of a NumPy archive, as PNG
    data_batch_1!/17                an image of a CIFAR-10 batch, as PNG
    8622.mha!/slice/0.5             a slice of a MetaImage volume: its number, or its place in the depth

Reading a member gives the bytes of an ordinary image file, so that limits, checks, digests and decoders
are the same for all images. Nothing is unpacked to disk, a member's name never becomes a path, and no code
in a pickle is run. FILE is known by its name; a folder called `x.zip!` cannot be told from an archive.

What a container says is believed by nobody here: child processes index all kinds, and read all that is
packed, pickled or behind a header (`stores.members.pool`). This process keeps the indexes, and reads by
itself only what is a stretch of bytes whose place and size it has checked against the file's: members of TAR
archives, and those stored in ZIP archives. Such a read cannot hang or swell, and costs no second copy.
"""

import hashlib
import os
import re
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stores.manifest.image_folder import sha256_of
from stores.members.batches import CifarBatch
from stores.members.npz import Npz
from stores.members.parts import MemberError, check_size
from stores.members.pool import readers
from stores.members.tars import Tar
from stores.members.volumes import Volume
from stores.members.zips import Entry, Zip

__all__ = ["Container", "Containers", "MemberError", "digest", "index", "names", "numbers", "split"]
#: Verdicts that hold for a whole container.
_CONDEMNED = ("too_slow", "too_much_memory", "decoder_died")
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


def split(uri: str) -> tuple[str, str]:
    """(the file's path, the member's name in it; empty if the uri names a whole file)."""
    found = _MEMBER.fullmatch(uri) if "!/" in uri else None
    return (found["file"], found["member"]) if found else (uri, "")


class _Far:
    """A container whose index is here, and whose packed or encoded members a child process reads."""

    def __init__(self, kind: str, near: Any, seat: int) -> None:
        self._kind, self._near, self._seat = kind, near, seat
        self._verdict: MemberError | None = None

    def size(self, member: str) -> int:
        """See `Container.size`."""
        return int(self._near.size(member))

    def read(self, file: int, member: str, max_bytes: int) -> bytes:
        """See `Container.read`."""
        if self._verdict is not None:
            raise MemberError(self._verdict.code, self._verdict.detail)
        check_size(size := self.size(member), max_bytes)
        question = {"kind": self._kind, "member": member, "max_bytes": max_bytes}
        try:
            return readers.ask(file, "read", self._seat, most=_encoded(size), **question)[1]
        except MemberError as error:
            if error.code in _CONDEMNED:  # its other rows would take as long
                self._verdict = error.with_traceback(None)
            raise


class _FarZip(Zip):
    """A ZIP archive whose index is here: a child process unpacks what is packed."""

    seat = 0

    def inflate(self, file: int, start: int, entry: Entry) -> bytes:
        """See `Zip.inflate`."""
        question = {"start": start, "packed": entry.packed, "size": entry.size}
        return readers.ask(file, "inflate", self.seat, most=entry.size + 1, **question)[1]


def _encoded(size: int) -> int:
    """Bytes that samples have at most as an image file; signed bytes become two each."""
    return 3 * size + (1 << 20)


class _Slot:
    """Where one container's index, or why there is none, is put once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.found: Container | MemberError | None = None


class Containers:
    """Indexes of the containers last used; the files themselves are not held open.

    Args:
        kept: how many. An index is used as long as the file's identity, size and time stay the same.
    """

    def __init__(self, kept: int = 64) -> None:
        self._kept = kept
        self._slots: OrderedDict[tuple[int, ...], _Slot] = OrderedDict()
        self._lock = threading.Lock()
        self._opened = 0

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return Containers, (self._kept,)

    def of(self, file: int, path: str) -> Container:
        """The index of an opened container.

        Args:
            file: its descriptor.
            path: its name, which says what it is.

        Raises:
            MemberError: codes corrupt, truncated, too_large, undecodable, too_slow, too_much_memory,
                decoder_died: it is not what its name says.
            OSError: it cannot be read. MachineFault: no process to read it can be had.
        """
        state = os.fstat(file)
        key = state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns
        with self._lock:
            slot = self._slots.pop(key, None) or _Slot()
            self._slots[key] = slot
            while len(self._slots) > self._kept:
                self._slots.popitem(last=False)
        if slot.found is None:
            with slot.lock:  # indexing once serves all who wait, and nobody who wants another file
                if slot.found is None:
                    self._opened += 1
                    slot.found = _opened(file, path, self._opened)
        if isinstance(slot.found, MemberError):
            raise MemberError(slot.found.code, slot.found.detail)
        return slot.found


def _opened(file: int, path: str, number: int) -> Container | MemberError:
    kind, seat = _kind(path), readers.seat(number)
    try:
        near = index(file, path, seat)
    except MemberError as error:
        return error.with_traceback(None)
    if kind in ("tar", "zip"):
        return near  # type: ignore[no-any-return]
    return _Far(kind, near, seat)


def index(file: int, path: str, seat: int = 0) -> Any:
    """The `Tar`, `Zip`, `Npz`, `Volume` or `CifarBatch` of an opened file, as its name says, by a child.

    The latter three say what there is; `Containers` reads it.

    Raises:
        MemberError, OSError, MachineFault: as `Containers.of`.
    """
    kind = _kind(path)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        raise MemberError("corrupt", "not a regular file")
    found, _ = readers.ask(file, "index", seat, kind=kind)
    near = _DESCRIBED[kind](found)
    if isinstance(near, _FarZip):
        near.seat = seat
    return near


def numbers(file: int, name: str, max_bytes: int) -> npt.NDArray[Any]:
    """A whole array of numbers of an opened `.npz` archive.

    Raises:
        MemberError, OSError, MachineFault: as `Containers.of`; also missing.
    """
    found, data = readers.ask(file, "array", most=max_bytes, member=name, max_bytes=max_bytes)
    return np.frombuffer(data, np.dtype(found["dtype"])).reshape(found["shape"])


#: What the child's `describe` is of.
_DESCRIBED: dict[str, Callable[[Any], Any]] = {
    "zip": _FarZip.described, "tar": Tar.described, "npz": Npz.described, "mha": Volume.described,
    "batch": CifarBatch.described,
}  # fmt: skip


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
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return list(index(file, str(path)).entries)
    finally:
        os.close(file)
