"""Reading the bytes of images, only from inside the manifest's root.

An image is a file, or a member of one (`stores.members`).
"""
# Called for every image and on open handles: `os` functions instead of `pathlib`.
# ruff: noqa: PTH115, PTH116, PTH118

import errno
import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.decode.contents import Contents
from engine.errors import BadImage, MachineFault, Refused
from stores.limits import check_whole
from stores.members import Containers, MemberError, split

#: Errors of the machine, because of which no row may be marked as failed.
_MACHINE = {
    errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.ENOMEM,
    errno.ENODEV, errno.ENOTCONN, errno.EHOSTDOWN, errno.EREMOTEIO,
}  # fmt: skip
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


@dataclass(frozen=True)
class Limits:
    """Limits of one image.

    Attributes:
        max_pixels: width times height as stated in the header; larger images do not reach a decoder.
        max_bytes: size of the file or, for a member, its unpacked size.
    """

    max_pixels: int = 64_000_000
    max_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        for name in ("max_pixels", "max_bytes"):
            check_whole(name, getattr(self, name), 1, 1 << 36)


@dataclass(frozen=True)
class ImageSource:
    """The files of a manifest.

    Attributes:
        root: directory that the uris are relative to.
        uris: one for each row, relative to `root` (absolute only with `allow_outside`); `FILE!/MEMBER` is an
            image inside a file.
        sha256: expected hexadecimal digest of each row's bytes ("" where unknown), or None.
        limits: see `Limits`.
        allow_outside: whether links and absolute uris may lead out of the root.
        contents: expected digests, and the place to record actual ones; None compares nothing.
    """

    root: Path
    uris: Sequence[str]
    sha256: Sequence[str] | None = None
    limits: Limits = field(default_factory=Limits)
    allow_outside: bool = False
    contents: Contents | None = None
    _containers: Containers = field(default_factory=Containers, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))
        object.__setattr__(self, "_real_root", os.path.realpath(self.root))
        if self.sha256 is not None and len(self.sha256) != len(self.uris):
            raise Refused(
                f"{len(self.sha256)} digests for {len(self.uris)} images",
                "There is one digest an image",
                "write the manifest again",
            )

    def __len__(self) -> int:
        return len(self.uris)

    def read(self, row: int) -> bytes:
        """Read all bytes of one row's image file, or of a member by `stores.members`.

        Raises:
            BadImage: the file cannot be used; codes missing, unreadable, not_a_file, outside_root, empty,
                too_large, digest; for a member also truncated, corrupt, undecodable.
            ChangedImage: the file differs from the one that `contents` expects.
            MachineFault: the storage failed, or the process has no file handles left.
        """
        uri = self.uris[row]
        try:
            data = self._read(*split(uri))
        except MemberError as error:
            raise BadImage(error.code, error.detail) from error
        except (ValueError, UnicodeError) as error:
            raise BadImage("unreadable", "the name cannot be a file's name") from error
        except OSError as error:
            raise _translate(error, uri) from error
        self._compare(row, data)
        return data

    def _compare(self, row: int, data: bytes) -> None:
        """Compare the file with the manifest's digest and with the file that the bank was made from."""
        expected = self.sha256[row].lower() if self.sha256 is not None else ""
        if self.contents is None and not expected:
            return
        digest = hashlib.sha256(data)
        if self.contents is not None:
            self.contents.record(row, digest.digest(), self.uris[row])
        if expected and digest.hexdigest() != expected:
            raise BadImage("digest", "the file's SHA-256 is not the manifest's")

    def _read(self, uri: str, member: str) -> bytes:
        path = os.path.join(self.root, uri)
        # Checked before opening, because opening a FIFO or a device can block or have effects.
        _check_kind(os.stat(path))
        handle = os.open(path, _FLAGS)
        try:
            state = os.fstat(handle)
            _check_kind(state)
            if not self.allow_outside:
                self._check_inside(handle, path)
            if not member:
                return self._read_all(handle, state.st_size)
            data = self._containers.of(handle, path).read(handle, member, self.limits.max_bytes)
            if not data:
                raise BadImage("empty", "0 bytes")
            return data
        finally:
            os.close(handle)

    def _check_inside(self, handle: int, path: str) -> None:
        """Refuse a file outside the root; asking the open handle leaves no time to exchange a link."""
        try:
            real = os.readlink(f"/proc/self/fd/{handle}")
        except OSError:  # no /proc on this system
            real = os.path.realpath(path)
        root: str = self._real_root  # type: ignore[attr-defined]
        if not real.startswith(root.rstrip(os.sep) + os.sep):
            raise BadImage("outside_root", "the path leads out of the manifest's root", pending=True)

    def _read_all(self, handle: int, size: int) -> bytes:
        limit = self.limits.max_bytes
        if size > limit:
            raise BadImage("too_large", f"{size} bytes, the limit is {limit}", pending=True)
        data = os.read(handle, size + 1)
        if len(data) != size:  # more than 2 GiB, or the file is being written to
            parts = [data]
            total = len(data)
            while data and total <= limit:
                data = os.read(handle, 1 << 24)
                parts.append(data)
                total += len(data)
            if total > limit:
                raise BadImage("too_large", f"more than the limit of {limit} bytes", pending=True)
            data = b"".join(parts)
        if not data:
            raise BadImage("empty", "0 bytes")
        return data


def _check_kind(state: os.stat_result) -> None:
    if stat.S_ISREG(state.st_mode):
        return
    kinds = ((stat.S_ISDIR, "directory"), (stat.S_ISFIFO, "FIFO"), (stat.S_ISSOCK, "socket"))
    kind = next((name for test, name in kinds if test(state.st_mode)), "device")
    raise BadImage("not_a_file", f"a {kind}")


def _translate(error: OSError, uri: str) -> BadImage | MachineFault:
    if error.errno in _MACHINE:
        return MachineFault(
            f"Reading {uri!r} failed: {error.strerror}",
            "A fault of the machine must not mark an image as bad",
            "repair it (or take the file out of the manifest) and run the same command again",
        )
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return BadImage("missing", "no such file", pending=True)
    if error.errno in (errno.EACCES, errno.EPERM):
        return BadImage("unreadable", error.strerror or "no permission", pending=True)
    details = {
        errno.ELOOP: "its links form a loop",
        errno.ENAMETOOLONG: "its name is too long for the file system",
    }
    return BadImage("unreadable", details.get(error.errno or 0, error.strerror or "cannot be opened"))
