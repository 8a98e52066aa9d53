"""A bank on a file system.

Nothing here overwrites in place. A file appears whole or not at all: it is written and fsynced under a
temporary name, then linked (never replacing) or renamed (derived files only).
"""

# Low-level calls on purpose: they are the points at which the tests inject faults.
# ruff: noqa: PTH102, PTH105, PTH106, PTH108, PTH112, PTH114, PTH116, PTH208

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.backends import disk, flock, mmap
from stores.backends.base import Backend, Lock, Stamp, StoredFile

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_ABSENT = (FileNotFoundError, NotADirectoryError)
#: Hashing releases the interpreter; more threads than this do not make a disk faster.
_THREADS = 8
#: Deeper than any folder of a bank.
_DEPTH = 8


class LocalBackend(Backend[Path]):
    """Files of this machine, or of a file system that it has mounted."""

    maps_files = True
    has_stamps = True

    # Reading

    @property
    def parallel_reads(self) -> int:
        return min(_THREADS, os.cpu_count() or 1)

    def read_if_there(self, path: Path, most: int | None = None) -> bytes | None:
        return disk.read_plain(path, most)

    def read_range(self, path: Path, start: int, length: int) -> bytes:
        with disk.faults(path):
            descriptor = disk.open_plain(path)
            try:
                return os.pread(descriptor, length, start)
            finally:
                os.close(descriptor)

    def digest(self, path: Path, expected: int | None = None) -> tuple[int, str] | None:
        if expected is not None:
            state = self.stat_if_there(path)
            if state is not None and state.st_size != expected:
                return state.st_size, ""
        with disk.faults(path):
            try:
                descriptor = disk.open_plain(path)
            except _ABSENT:
                return None
            try:
                sha256, size, block = hashlib.sha256(), 0, memoryview(bytearray(disk.BLOCK))
                while count := os.readv(descriptor, [block]):
                    sha256.update(block[:count])
                    size += count
                return size, sha256.hexdigest()
            finally:
                os.close(descriptor)

    def stat_if_there(self, path: Path) -> os.stat_result | None:
        with disk.faults(path):
            try:
                return os.stat(path)
            except _ABSENT:
                return None

    def stamps(self, root: Path, relatives: Collection[str]) -> dict[str, Stamp | None]:
        stamps: dict[str, Stamp | None] = {}
        with disk.faults(root):
            for relative in relatives:
                try:
                    # Plain text: Path objects would cost more than the calls.
                    state = os.stat(f"{root}/{relative}")
                except _ABSENT:
                    stamps[relative] = None
                else:
                    stamps[relative] = [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]
        return stamps

    def map_chunks(
        self, paths: Sequence[Path], payload: int, dtype: np.dtype[Any], tail: tuple[int, ...]
    ) -> npt.NDArray[Any]:
        return mmap.map_chunks(paths, payload, dtype, tail)

    # Listing

    def names(self, folder: Path) -> list[str]:
        with disk.faults(folder):
            try:
                return sorted(os.listdir(folder))
            except _ABSENT:
                return []

    def tree(self, folder: Path) -> tuple[list[Path], list[Path]]:
        inside: list[Path] = []
        folders: list[Path] = []
        with disk.faults(folder):
            if not os.path.isdir(folder):
                return [], []
            for inner, below, entries in os.walk(folder, topdown=False, onerror=_raise):
                links = [name for name in below if os.path.islink(f"{inner}/{name}")]
                inside += [Path(inner, name) for name in sorted([*entries, *links])]
                folders.append(Path(inner))
        return inside, folders

    def inventory(self, folder: Path) -> list[StoredFile]:
        stored = []
        for path in self.tree(folder)[0]:
            with contextlib.suppress(OSError):  # gone meanwhile
                state = path.lstat()
                stored.append(StoredFile(path, state.st_size, max(state.st_mtime, state.st_atime)))
        return stored

    # Writing

    def create(self, path: Path, data: bytes | memoryview, temp: Path) -> bool:
        try:
            disk.write_new(temp, data)
            with disk.faults(path):
                try:
                    os.link(temp, path)
                except FileExistsError:
                    return False
                except OSError as error:
                    if error.errno not in _NO_LINKS:
                        raise
                    return _create_without_links(path, data)
            return True
        finally:
            disk.discard(temp)

    def replace(self, path: Path, data: bytes, temp: Path) -> None:
        try:
            disk.write_new(temp, data)
            with disk.faults(path):
                os.replace(temp, path)
        finally:
            disk.discard(temp)
        self.sync_directory(path.parent)

    def copy(self, source: Path, path: Path, temp: Path) -> bool:
        with disk.faults(path):
            try:
                with contextlib.suppress(FileNotFoundError):
                    disk.refuse_special(source, os.lstat(source))
                os.link(source, path)
                return True
            except FileExistsError:
                return False
            except OSError as error:
                # A source that is missing is for `read` to name.
                if error.errno not in (*_NO_LINKS, errno.EXDEV, errno.ENOENT):
                    raise
        return self.create(path, self.read(source), temp)

    def move(self, source: Path, target: Path) -> bool:
        self.make_directory(target.parent)
        with disk.faults(source):
            try:
                os.replace(source, target)
            except _ABSENT:
                return False
        self.sync_directory(source.parent)
        self.sync_directory(target.parent)
        return True

    def remove(self, path: Path) -> None:
        with disk.faults(path), contextlib.suppress(*_ABSENT):
            os.unlink(path)

    # Folders, links and durability

    def make_directory(self, folder: Path) -> None:
        # An existing one is synced too: its creator may have died before its name reached the disk.
        with disk.faults(folder):
            if not os.path.isdir(folder.parent):
                self.make_directory(folder.parent)
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder)
        self.sync_directory(folder.parent)

    def remove_directory(self, folder: Path) -> None:
        with disk.faults(folder):
            try:
                os.rmdir(folder)
            except _ABSENT:
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise

    def sync_directory(self, folder: Path) -> None:
        _sync(folder, os.O_DIRECTORY)

    def sync_file(self, path: Path) -> None:
        _sync(path, 0)

    def is_not_a_folder(self, path: Path) -> bool:
        return self.stat_if_there(path) is not None and not os.path.isdir(path)

    def link_in(self, folder: Path, accept: Callable[[str], bool]) -> Path | None:
        for entry in _entries(str(folder)):
            if entry.is_symlink() and accept(entry.name):
                return Path(entry.path)
        return None

    def link_below(self, folder: Path, skip: Collection[str]) -> Path | None:
        pending = [(str(folder), 0)]
        while pending:
            inner, depth = pending.pop()
            enter = depth < _DEPTH and inner.rpartition("/")[2] not in skip
            for entry in _entries(inner):
                if entry.is_symlink():
                    return Path(entry.path)
                if enter and entry.is_dir(follow_symlinks=False):
                    pending.append((entry.path, depth + 1))
        return None

    def remove_link(self, path: Path) -> None:
        if os.path.islink(path):
            self.remove(path)

    # This machine

    def local_path(self, path: Path) -> Path | None:
        return path

    def why_unwritable(self, path: Path) -> str:
        folder = path.absolute()
        while not os.path.lexists(folder) and folder != folder.parent:
            folder = folder.parent
        if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
            return ""
        return f"{folder} cannot be written to" if folder.is_dir() else f"{folder} is not a folder"

    # Locks

    def coordinate(self, path: Path, what: str) -> Lock:
        return flock.coordinate(path, what)

    def hold(
        self, path: Path, *, shared: bool = False, patience: float = 60.0
    ) -> AbstractContextManager[Lock]:
        return flock.held(path, shared=shared, patience=patience)

    def refuse_taken(self, path: Path, what: str) -> None:
        if self.stat_if_there(path) is not None:
            flock.refuse_taken(path, what)


def _create_without_links(path: Path, data: bytes | memoryview) -> bool:
    # Some file systems have no hard links. O_EXCL keeps creation exclusive; what a crash tears here has no
    # marker (or is a marker that fails its own digest), so the next start removes it.
    return disk.create_new(path, data)


def _sync(path: Path, flags: int) -> None:
    with disk.faults(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _raise(error: OSError) -> None:
    raise error


def _entries(folder: str) -> "Iterator[os.DirEntry[str]]":
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError:  # none there, or unreadable: opening what is in it says so
        return
