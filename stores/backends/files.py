"""Every touch of the disk by which the bank is written or checked; each can be made to fail in a test.

Nothing here overwrites in place. A file appears whole or not at all: it is written and fsynced under a
temporary name, then linked (never replacing) or renamed (derived files only). Trouble becomes a
`MachineFault` (disk full, I/O error) or a `BankError` (no permission, file gone).

Where the place is in a bucket, `stores.backends.object_store` does the same there: no temporaries, no syncs.
"""

# Low-level calls on purpose: they are the points at which the tests inject faults.
# ruff: noqa: PTH102, PTH105, PTH106, PTH108, PTH112, PTH114, PTH116, PTH208

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from stores.backends import deadlines, object_store
from stores.backends.location import ObjectPath, Place
from stores.errors import BankError, EmbankError, MachineFault, PathRefused

T = TypeVar("T")
R = TypeVar("R")

#: Separates the owner's name from the random part of a temporary name.
TEMP_MARK = "~"
_BLOCK = 4 << 20
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def each(root: Place, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`function` of every item, in order; at once where each has to wait for a network."""
    if isinstance(root, ObjectPath):
        return list(deadlines.at_once(object_store.THREADS, function, items))
    return [function(item) for item in items]


def translate(error: OSError, path: Place) -> EmbankError:
    """The user's view of an operating system error met at `path`."""
    reason = error.strerror or type(error).__name__
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return BankError(
            f"{path}: {reason}",
            "The bank must be writable here",
            "give this user write permission, or copy it",
        )
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
        return BankError(
            f"{path}: {reason}",
            "The bank needs this file",
            "run `embank bank verify`, then `embank bank repair`",
        )
    if error.errno == errno.ELOOP:
        return _no_plain_file(path, "a link")
    remedy = "run the same command again once the cause is gone; committed chunks are kept"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free space, then run the same command again; committed chunks are kept"
    return MachineFault(f"{path}: {reason}", "The disk must take and give back what the bank stores", remedy)


@contextlib.contextmanager
def faults(path: Place) -> Iterator[None]:
    """Translate operating system errors of the body (`translate`)."""
    try:
        yield
    except OSError as error:
        raise translate(error, path) from error


_PLAIN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_KINDS = (
    (stat.S_ISLNK, "a link"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip


def open_plain(path: Path) -> int:
    """A descriptor of a bank's file, for reading.

    Asked before it is opened: opening a FIFO or a device can block or act, and a link leads elsewhere.

    Raises:
        PathRefused: it is a link or a special file. OSError: it cannot be opened.
    """
    refuse_special(path, os.lstat(path))
    descriptor = os.open(path, _PLAIN)
    try:
        refuse_special(path, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def refuse_special(path: Path, state: os.stat_result) -> None:
    """Raise PathRefused for a link or a special file."""
    for test, kind in _KINDS:
        if test(state.st_mode):
            raise _no_plain_file(path, kind)


def _no_plain_file(path: Place, kind: str) -> PathRefused:
    return PathRefused(
        f"{path} is {kind}",
        "The files of a bank are plain files",
        "remove it; `embank bank verify` then says what is missing, and `embank bank repair` mends it",
    )


def _read_descriptor(descriptor: int) -> bytes:
    pieces = []
    while piece := os.read(descriptor, _BLOCK):
        pieces.append(piece)
    return b"".join(pieces)


def read_if_there(path: Place, most: int | None = None) -> bytes | None:
    """The file's bytes, or None where there is no such file.

    Args:
        most: bytes that it may have; None for any number.

    Raises:
        PathRefused: a link, FIFO, socket or device. BankError: more than `most` bytes.
    """
    if isinstance(path, ObjectPath):
        return object_store.read_if_there(path)
    with faults(path):
        try:
            descriptor = open_plain(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            size = os.fstat(descriptor).st_size
            if most is not None and size > most:
                raise BankError(
                    f"{path} has {size} bytes",
                    f"What it holds takes at most {most}",
                    "remove it; `embank bank verify` then says what is missing",
                )
            return _read_descriptor(descriptor)
        finally:
            os.close(descriptor)


def read(path: Place, most: int | None = None) -> bytes:
    """The file's bytes. Raises BankError where there is no such file, else as `read_if_there`."""
    data = read_if_there(path, most)
    if data is None:
        raise translate(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)), path)
    return data


def digest(path: Place) -> tuple[int, str] | None:
    """Size in bytes and SHA-256 of a file, read in blocks; None where there is no such file."""
    if isinstance(path, ObjectPath):
        return object_store.digest(path)
    with faults(path):
        try:
            descriptor = open_plain(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            state, size, block = hashlib.sha256(), 0, memoryview(bytearray(_BLOCK))
            while count := os.readv(descriptor, [block]):
                state.update(block[:count])
                size += count
            return size, state.hexdigest()
        finally:
            os.close(descriptor)


def stat_if_there(path: Place) -> os.stat_result | object_store.State | None:
    """The file's stat, or None where there is no such file."""
    if isinstance(path, ObjectPath):
        return object_store.stat_if_there(path)
    with faults(path):
        try:
            return os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None


def stamps(root: Place, relatives: Iterable[str]) -> dict[str, list[int] | None]:
    """(size, mtime, ctime, inode) of many files, times in ns; None for one that is not there.

    Objects have none: whatever is read of them is checked as it arrives (`stores.backends.remote_read`).
    """
    if isinstance(root, ObjectPath):
        return dict.fromkeys(relatives)
    found: dict[str, list[int] | None] = {}
    with faults(root):
        for relative in relatives:
            try:
                state = os.stat(
                    f"{root}/{relative}"
                )  # Plain text: Path objects would cost more than the calls.
            except (FileNotFoundError, NotADirectoryError):
                found[relative] = None
            else:
                found[relative] = [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]
    return found


def names(path: Place) -> list[str]:
    """Sorted names in a directory; none where there is no such directory."""
    if isinstance(path, ObjectPath):
        return object_store.names(path)
    with faults(path):
        try:
            return sorted(os.listdir(path))
        except (FileNotFoundError, NotADirectoryError):
            return []


def sync_directory(path: Place) -> None:
    """Make the names in a directory survive a power cut."""
    if isinstance(path, ObjectPath):
        return
    with faults(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_file(path: Place) -> None:
    """Make a file's bytes survive a power cut."""
    if isinstance(path, ObjectPath):
        return
    with faults(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_directory(path: Place) -> None:
    """Create a directory and missing parents, durably; an existing one is synced as well.

    Whoever created it may have died before its name reached the disk.
    """
    if isinstance(path, ObjectPath):
        return
    with faults(path):
        if not os.path.isdir(path.parent):
            make_directory(path.parent)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
    sync_directory(path.parent)


def write_new(path: Path, data: bytes | memoryview) -> None:
    """Create `path`, which must not exist, and fsync its bytes. Interrupted, it leaves a torn file."""
    with faults(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def temporary(directory: Place, owner: str) -> Place:
    """A fresh name in `directory` that shows whose it is."""
    return directory / f"{owner}{TEMP_MARK}{secrets.token_hex(8)}"


def remove(path: Place) -> None:
    """Remove a file; none there is as good."""
    if isinstance(path, ObjectPath):
        object_store.remove(path)
        return
    with faults(path), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.unlink(path)


def remove_directory(path: Place) -> None:
    """Remove a directory if nothing is in it; none there is as good."""
    if isinstance(path, ObjectPath):
        return
    with faults(path):
        try:
            os.rmdir(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def remove_link(path: Place) -> None:
    """Remove a name that leads to a directory elsewhere; anything else stays."""
    if isinstance(path, Path) and os.path.islink(path):
        remove(path)


def tree(path: Place) -> tuple[list[Place], list[Place]]:
    """All files below a directory, and all directories, itself included, the innermost first.

    Links are files. A directory that cannot be read raises as any other touch of the disk.
    """
    if isinstance(path, ObjectPath):
        return list(object_store.tree(path)), []
    inside: list[Place] = []
    folders: list[Place] = []
    with faults(path):
        if not os.path.isdir(path):
            return [], []
        for folder, below, entries in os.walk(path, topdown=False, onerror=_raise):
            links = [name for name in below if os.path.islink(f"{folder}/{name}")]
            inside += [Path(folder, name) for name in sorted([*entries, *links])]
            folders.append(Path(folder))
    return inside, folders


def _raise(error: OSError) -> None:
    raise error


def remove_tree(path: Place) -> None:
    """Remove a directory and all that is in it, durably; none there is as good."""
    inside, folders = tree(path)
    each(path, remove, inside)
    for folder in folders:
        remove_directory(folder)
    if folders:
        remove_link(path)
        sync_directory(path.parent)


def _discard(path: Path) -> None:
    """Remove a temporary on the way out of trouble; a leftover is the next start's to remove."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def create(path: Place, data: bytes | memoryview, temp: Place) -> bool:
    """Create `path` with `data`, whole and exclusively. False if something is there already.

    Args:
        temp: a fresh name on the same file system (`temporary`). The caller syncs the directory of `path`.
    """
    if isinstance(path, ObjectPath):
        return object_store.create(path, data)
    assert isinstance(temp, Path)
    try:
        write_new(temp, data)
        with faults(path):
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
        _discard(temp)


def _create_without_links(path: Path, data: bytes | memoryview) -> bool:
    # Some file systems have no hard links. O_EXCL keeps creation exclusive; what a crash tears here has no
    # marker (or is a marker that fails its own digest), so the next start removes it.
    if os.path.lexists(path):
        return False
    write_new(path, data)
    return True


def copy(source: Place, path: Place, temp: Place) -> bool:
    """Create `path` with the bytes of `source`, exclusively: a second name of the file, or a copy of it.

    Which is no matter, since nothing overwrites a file in place. False if something is there already.

    Args:
        temp: as for `create`.
    """
    if isinstance(source, Path) and isinstance(path, Path):
        with faults(path):
            try:
                with contextlib.suppress(FileNotFoundError):
                    refuse_special(source, os.lstat(source))
                os.link(source, path)
                return True
            except FileExistsError:
                return False
            except OSError as error:
                # A source that is missing is for `read` to name.
                if error.errno not in (*_NO_LINKS, errno.EXDEV, errno.ENOENT):
                    raise
    return create(path, read(source), temp)


def replace(path: Place, data: bytes, temp: Place) -> None:
    """Put `data` at `path` atomically and durably. Only for derived files and caches."""
    if isinstance(path, ObjectPath):
        object_store.replace(path, data)
        return
    assert isinstance(temp, Path)
    try:
        write_new(temp, data)
        with faults(path):
            os.replace(temp, path)
    finally:
        _discard(temp)
    sync_directory(path.parent)


def move(source: Place, target: Place) -> bool:
    """Rename a file durably; False if there was none. In a bucket: copy, then delete."""
    if isinstance(source, ObjectPath):
        assert isinstance(target, ObjectPath)
        return object_store.move(source, target)
    assert isinstance(target, Path)
    make_directory(target.parent)
    with faults(source):
        try:
            os.replace(source, target)
        except (FileNotFoundError, NotADirectoryError):
            return False
    sync_directory(source.parent)
    sync_directory(target.parent)
    return True
