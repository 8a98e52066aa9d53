"""Images inside other files, named by uris of the form `FILE!/MEMBER`.

    shard-000.tar!/0001.png         a file in an uncompressed TAR archive
    images.zip!/train/cat/7.jpg     a file in a ZIP archive (stored or deflated)
    pathmnist.npz!/test_images/17   a row of an array [n, height, width(, 3)] of a NumPy archive, as PNG
    data_batch_1!/17                an image of a CIFAR-10 batch, as PNG
    8622.mha!/slice/0.5             a slice of a MetaImage volume: its number, or its place in the depth

Reading a member gives the bytes of an ordinary image file, so that limits, checks, digests and decoders
are the same for all images. Nothing is unpacked to disk, a member's name never becomes a path, and no code
in a pickle is run. The kind of FILE follows from its name; a folder called `x.zip!` is taken for an archive.

Containers are not trusted: child processes index all kinds, and read everything that is compressed, pickled
or behind a header (`stores.members.pool`). This process keeps the indexes; it reads only plain byte ranges
itself, after checking their offset and size against the file's size: members of TAR archives, and those that
ZIP archives store uncompressed. Such a read can neither hang nor allocate without bound, and needs no second
copy.
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

__all__ = [
    "Container", "Containers", "MemberError", "digest", "member_names", "open_index", "read_array", "split",
]  # fmt: skip
#: Codes of errors after which no other member of the container is tried.
_FATAL = ("too_slow", "too_much_memory", "decoder_died")
#: Largest member that `digest` reads, in bytes.
_MAX_BYTES = 1 << 30

_MEMBER = re.compile(
    r"(?P<file>(?:.*?\.(?P<suffix>zip|tar|npz|mha)|(?:.*?/)?(?P<batch>data_batch_[1-5]|test_batch)))!/(?P<member>.+)",
    re.IGNORECASE | re.DOTALL,
)


class Container(Protocol):
    """The index of one file's members. Safe to share between threads."""

    def size(self, member: str) -> int:
        """Return the size of a member in bytes; for an array's row or a slice, that of its samples alone.

        Raises:
            MemberError: no member has this name.
        """
        ...

    def read(self, file: int, member: str, max_bytes: int) -> bytes:
        """Return the bytes of a member.

        Args:
            file: an open descriptor of the container; need not be the one that was indexed.
            member: its name.
            max_bytes: largest size that is accepted.

        Raises:
            MemberError: codes missing, too_large, truncated, corrupt, undecodable.
            OSError: the container cannot be read.
        """
        ...


def split(uri: str) -> tuple[str, str]:
    """Split a uri into the file's path and the member's name in it, empty if the uri names a plain file."""
    match = _MEMBER.fullmatch(uri) if "!/" in uri else None
    return (match["file"], match["member"]) if match else (uri, "")


class _RemoteContainer:
    """A container indexed in this process, whose members are read by a child process.

    Args:
        kind: as `_kind` returns it.
        index: made from what the child described.
        seat: of the child (`stores.members.pool.Readers`).
    """

    def __init__(self, kind: str, index: Any, seat: int) -> None:
        self._kind, self._index, self._seat = kind, index, seat
        self._fatal: MemberError | None = None

    def size(self, member: str) -> int:
        """See `Container.size`."""
        return int(self._index.size(member))

    def read(self, file: int, member: str, max_bytes: int) -> bytes:
        """See `Container.read`."""
        if self._fatal is not None:
            raise MemberError(self._fatal.code, self._fatal.detail)
        check_size(size := self.size(member), max_bytes)
        try:
            return readers.ask(
                file,
                {"do": "read", "kind": self._kind, "member": member, "max_bytes": max_bytes},
                self._seat,
                max_data=_max_encoded(size),
            )[1]
        except MemberError as error:
            if error.code in _FATAL:  # the other members would take as long
                self._fatal = error.with_traceback(None)
            raise


class _RemoteZip(Zip):
    """A ZIP archive indexed in this process, whose compressed members are inflated by a child process."""

    seat = 0

    def inflate(self, file: int, start: int, entry: Entry) -> bytes:
        """See `Zip.inflate`."""
        return readers.ask(
            file,
            {"do": "inflate", "start": start, "packed": entry.packed, "size": entry.size},
            self.seat,
            max_data=entry.size + 1,
        )[1]


def _max_encoded(size: int) -> int:
    """Bound the bytes of samples encoded as an image file; signed bytes become two each."""
    return 3 * size + (1 << 20)


class _Slot:
    """The place of one container's index, or of the error that indexing it raised; set once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.content: Container | MemberError | None = None


class Containers:
    """Indexes of the containers used last; the files themselves are not held open.

    An index is used as long as the file's identity, size and modification time stay the same.

    Args:
        kept: number of indexes.
    """

    def __init__(self, kept: int = 64) -> None:
        self._kept = kept
        self._slots: OrderedDict[tuple[int, ...], _Slot] = OrderedDict()
        self._lock = threading.Lock()
        self._opened = 0

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return Containers, (self._kept,)

    def of(self, file: int, path: str) -> Container:
        """Return the index of an open container.

        Args:
            file: its descriptor.
            path: its name, from which its kind follows.

        Raises:
            MemberError: codes corrupt, truncated, too_large, undecodable, too_slow, too_much_memory,
                decoder_died: the file is not a sound container of its kind.
            OSError: it cannot be read.
            MachineFault: no child process can be started.
        """
        state = os.fstat(file)
        key = state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns
        with self._lock:
            slot = self._slots.pop(key, None) or _Slot()
            self._slots[key] = slot
            while len(self._slots) > self._kept:
                self._slots.popitem(last=False)
        if slot.content is None:
            with slot.lock:  # threads that want the same file wait for one indexing; others are not held up
                if slot.content is None:
                    self._opened += 1
                    slot.content = _open_container(file, path, readers.seat(self._opened))
        if isinstance(slot.content, MemberError):
            raise MemberError(slot.content.code, slot.content.detail)
        return slot.content


def _open_container(file: int, path: str, seat: int) -> Container | MemberError:
    kind = _kind(path)
    try:
        index = open_index(file, path, seat)
    except MemberError as error:
        return error.with_traceback(None)
    if kind in ("tar", "zip"):
        return index  # type: ignore[no-any-return]
    return _RemoteContainer(kind, index, seat)


def open_index(file: int, path: str, seat: int = 0) -> Any:
    """Have a child process index an open container.

    Args:
        file: its descriptor.
        path: its name, from which its kind follows.
        seat: of the child (`stores.members.pool.Readers`).

    Returns:
        A `Tar`, `Zip`, `Npz`, `Volume` or `CifarBatch`. The latter three list the members but cannot read
        them in this process; `Containers` has a child read them.

    Raises:
        MemberError, OSError, MachineFault: as `Containers.of`.
    """
    kind = _kind(path)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        raise MemberError("corrupt", "not a regular file")
    description, _ = readers.ask(file, {"do": "index", "kind": kind}, seat)
    index = _FROM_DESCRIPTION[kind](description)
    if isinstance(index, _RemoteZip):
        index.seat = seat
    return index


def read_array(file: int, name: str, max_bytes: int) -> npt.NDArray[Any]:
    """Read a complete array of numbers from an open `.npz` archive.

    Args:
        file: descriptor of the archive.
        name: of the array, without `.npy`.
        max_bytes: largest size that is accepted.

    Raises:
        MemberError, OSError, MachineFault: as `Containers.of`; also missing.
    """
    description, data = readers.ask(
        file, {"do": "array", "member": name, "max_bytes": max_bytes}, max_data=max_bytes
    )
    return np.frombuffer(data, np.dtype(description["dtype"])).reshape(description["shape"])


#: Kind of a container -> function from the child's description to the index.
_FROM_DESCRIPTION: dict[str, Callable[[Any], Any]] = {
    "zip": _RemoteZip.from_description, "tar": Tar.from_description, "npz": Npz.from_description,
    "mha": Volume.from_description, "batch": CifarBatch.from_description,
}  # fmt: skip


def _kind(path: str) -> str:
    """Return the kind of a container, which follows from its name: zip, tar, npz, mha or batch."""
    match: Any = _MEMBER.fullmatch(f"{path}!/-")
    return match["suffix"].lower() if match["suffix"] else "batch"


def digest(containers: Containers, path: Path, member: str) -> str | None:
    """Return the SHA-256 of a member in hex, of the file if `member` is empty; None if it cannot be read."""
    if not member:
        return sha256_of(path)
    try:
        with path.open("rb", buffering=0) as stream:
            data = containers.of(stream.fileno(), str(path)).read(stream.fileno(), member, _MAX_BYTES)
    except (MemberError, OSError):
        return None
    return hashlib.sha256(data).hexdigest()


def member_names(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of the files in a ZIP or TAR archive, in its order, without folders and links.

    Raises:
        MemberError: as `Containers.of`.
        OSError: it cannot be read.
    """
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return list(open_index(file, str(path)).entries)
    finally:
        os.close(file)
