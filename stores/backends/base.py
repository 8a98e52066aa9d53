"""The contract of a storage backend: what a bank needs from its storage.

A bank is safe on any storage that keeps these promises; `tests.contracts.backend_suite` tests each of them.

* **Whole or absent.** `create` and `replace` put a file in place with all of its bytes or not at all,
  whenever the process dies. (On a file system without hard links `create` may tear a file; see there.)
* **Exclusive.** Of any number of processes that `create` one file, on any number of machines, exactly one is
  told True. Nothing overwrites a file in place; `replace` is for files that can be derived again.
* **Durable.** What was created survives a power cut once its folder has been synced (`sync_directory`); what
  `replace` and `move` did survives it when they return.
* **Read back as written.** A read gives all bytes of the file or raises. Where bytes can be spoilt or cut
  short on their way without notice, every reader compares them with a digest, as the bank's do.
* **No silence.** Absence is None, False or an empty list. Everything else that goes wrong is raised:
  `BankError` where trying again would not help (no permission, no such bucket), `MachineFault` where it may
  (disk full, I/O error, no answer). Nothing raises OSError.
* **Locks.** One coordinator a feature; a lock that may be shared by committers or held alone by a clean-up.
  Locks keep processes out of each other's way; exclusive creation keeps the bank sound without them.

To add a backend: subclass `Backend` (the abstract methods are all that is needed; the others have defaults
for a storage without folders, links or a path on this machine), register it for a URL scheme
(`stores.backends.registry.register`), and let a test class inherit `BackendSuite`.
"""

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from stores.backends.location import ObjectPath, Place
from stores.errors import BankError

P = TypeVar("P", Path, ObjectPath)
Item = TypeVar("Item")
Result = TypeVar("Result")

#: Separates the owner's name from the random part of a temporary name.
TEMP_MARK = "~"
#: (size, mtime, ctime, inode), times in nanoseconds: see `Backend.stamps`.
Stamp = list[int]


class FileState(Protocol):
    """State of a file, as `stat_if_there` returns it."""

    @property
    def st_size(self) -> int:
        """Bytes."""
        ...


@dataclass(frozen=True)
class StoredFile:
    """A file, as an inventory lists it.

    Attributes:
        path: where it lies.
        size: bytes.
        used: when it was last written or, where the storage knows that, read; seconds since 1970.
    """

    path: Place
    size: int
    used: float


class Lock(Protocol):
    """A lock that this process holds."""

    def alive(self) -> bool:
        """Return whether the lock is still held: nobody has taken it from a holder that seemed dead."""
        ...

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
        ...

    def unsign(self) -> None:
        """Remove the holder's name from what others can read; for a coordinator that is about to let go."""
        ...


class Backend(ABC, Generic[P]):
    """Storage of one kind. An instance has no state of a bank and can be shared by threads and pickled.

    Paths are `pathlib.Path` or `ObjectPath`, absolute or as the user gave them. A folder is a common
    beginning of paths: where folders do not exist by themselves, making and syncing one does nothing.
    """

    #: Whether files can be mapped into memory. Otherwise they are fetched, checked as they arrive, and kept
    #: in this user's cache (`stores.bank.sealed_files`).
    maps_files: ClassVar[bool] = False
    #: Whether every write changes a file's stamp (`stamps`), so that a file whose bytes were found right
    #: need not be read again while its stamp holds.
    has_stamps: ClassVar[bool] = False

    # Reading

    @property
    @abstractmethod
    def parallel_reads(self) -> int:
        """Number of files that are best read at once."""

    @abstractmethod
    def read_if_there(self, path: P, most: int | None = None) -> bytes | None:
        """Read a file; None where there is no such file.

        Args:
            most: bytes that it may have; None for any number.

        Raises:
            BankError: the file has more bytes, or may not be read. PathRefused: it is no plain file.
            MachineFault: I/O error, or an answer that is not whole.
        """

    def read(self, path: P, most: int | None = None) -> bytes:
        """Read a file. Raises BankError where there is no such file, else as `read_if_there`."""
        data = self.read_if_there(path, most)
        if data is None:
            raise missing(path)
        return data

    @abstractmethod
    def read_range(self, path: P, start: int, length: int) -> bytes:
        """Read up to `length` bytes from `start`, which lies inside the file; fewer at its end.

        Raises:
            BankError: there is no such file. Else as `read_if_there`.
        """

    @abstractmethod
    def digest(self, path: P, expected: int | None = None) -> tuple[int, str] | None:
        """Return size in bytes and SHA-256 (hex) of a file, without holding all of it in memory.

        Args:
            expected: bytes that the file should have; one of another size need not be read, and its digest is
                then the empty text.

        Returns:
            None where there is no such file.
        """

    @abstractmethod
    def stat_if_there(self, path: P) -> FileState | None:
        """Return a file's state, or None where there is no such file."""

    def stamps(self, root: P, relatives: Collection[str]) -> dict[str, Stamp | None]:
        """Return the stamps of many files below a folder; None for one that is absent or that has none."""
        return dict.fromkeys(relatives)

    def map_chunks(
        self, paths: Sequence[P], payload: int, dtype: np.dtype[Any], tail: tuple[int, ...]
    ) -> npt.NDArray[Any]:
        """Map the payloads of chunk files, one after another, as one read-only array.

        Only where `maps_files`.

        Args:
            paths: chunk files in order; each holds `payload` bytes, then a checksum.
            payload: bytes a chunk.
            dtype: of the elements.
            tail: shape of one row.

        Returns:
            dtype [rows, *tail], read-only.

        Raises:
            BankError: a file is missing or too short. MachineFault: I/O error, or no address space.
        """
        raise NotImplementedError

    # Listing

    @abstractmethod
    def names(self, folder: P) -> list[str]:
        """Return the sorted names right below a folder, of files and folders; empty if there is no folder."""

    @abstractmethod
    def tree(self, folder: P) -> tuple[list[P], list[P]]:
        """List all files below a folder, and all folders, itself included, the innermost first.

        Links are files. Where folders do not exist by themselves none is listed.
        """

    @abstractmethod
    def inventory(self, folder: P) -> list[StoredFile]:
        """List all files below a folder with sizes and times, except those that are removed meanwhile."""

    # Writing

    def temporary(self, folder: P, owner: str) -> P:
        """Return a fresh name in a folder that shows whose it is."""
        return folder / f"{owner}{TEMP_MARK}{secrets.token_hex(8)}"

    @abstractmethod
    def create(self, path: P, data: bytes | memoryview, temp: P) -> bool:
        """Create a file, whole and exclusively.

        On a file system without hard links a kill can leave a file torn. So whatever trusts a created file
        must know its digest: a marker contains its own and those of the other files.

        Args:
            temp: a fresh name in a folder of the same storage (`temporary`), for a storage that needs one.
                What a kill leaves under it is the next start's to remove.

        Returns:
            False if something is there already, which stays as it is.

        Raises:
            BankError: no permission. MachineFault: the disk is full, I/O error, no answer.
        """

    @abstractmethod
    def replace(self, path: P, data: bytes, temp: P) -> None:
        """Write a file at `path` atomically and durably, whatever is there; for what can be derived again.

        Args, Raises: as `create`.
        """

    def copy(self, source: P, path: P, temp: P) -> bool:
        """Create a file with the bytes of another of this storage, exclusively: a second name, or a copy.

        Both are equal, since nothing overwrites a file in place. Returns False if something is there.
        """
        return self.create(path, self.read(source), temp)

    @abstractmethod
    def move(self, source: P, target: P) -> bool:
        """Rename a file durably; return False if there is none. A kill can leave both names, never none."""

    @abstractmethod
    def remove(self, path: P) -> None:
        """Remove a file, if it exists."""

    def remove_tree(self, folder: P) -> None:
        """Remove a folder and all that is in it, durably, if it exists."""
        inside, folders = self.tree(folder)
        self.each(self.remove, inside)
        for inner in folders:
            self.remove_directory(inner)
        if folders:
            self.remove_link(folder)
            self.sync_directory(folder.parent)

    def each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Call a function that touches this storage with every item, in order; at once where it waits."""
        return [function(item) for item in items]

    # Folders, links and durability: for a storage that has them

    def make_directory(self, folder: P) -> None:
        """Create a folder and its missing parents, durably; one that exists is synced as well."""

    def remove_directory(self, folder: P) -> None:
        """Remove a folder if it exists and is empty."""

    def sync_directory(self, folder: P) -> None:
        """Make the names in a folder survive a power cut."""

    def sync_file(self, path: P) -> None:
        """Make a file's bytes survive a power cut."""

    def is_not_a_folder(self, path: P) -> bool:
        """Return whether something other than a folder is there, so that nothing can lie below it."""
        return False

    def link_in(self, folder: P, accept: Callable[[str], bool]) -> P | None:
        """Return the first name in a folder that `accept` takes and that is a symbolic link, if any."""
        return None

    def link_below(self, folder: P, skip: Collection[str]) -> P | None:
        """Return the first symbolic link at any depth below a folder, if any.

        Args:
            skip: names of folders whose own folders are not entered.
        """
        return None

    def remove_link(self, path: P) -> None:
        """Remove a symbolic link to a folder elsewhere; anything else stays."""

    # This machine

    def local_path(self, path: P) -> Path | None:
        """Return the path by which any program of this machine reaches a file; None if there is none."""
        return None

    def why_unwritable(self, path: P) -> str:
        """Return why no folder can be made at `path`, as far as can be told without writing; else nothing."""
        return ""

    # Locks

    @abstractmethod
    def coordinate(self, path: P, what: str) -> Lock:
        """Become the one coordinator of `what`, and sign the lock with a name that others can read.

        Raises:
            Refused: there is a living one already; the message names it.
        """

    @abstractmethod
    def hold(self, path: P, *, shared: bool = False, patience: float = 60.0) -> AbstractContextManager[Lock]:
        """Hold a lock for the body of a `with`: with other sharers, or alone.

        Args:
            patience: seconds to wait for it, at least.

        Raises:
            BankError: others did not let go in time.
        """

    def refuse_taken(self, path: P, what: str) -> None:
        """Raise Refused if another process is known, without writing, to coordinate `what` now."""


def missing(path: Place) -> BankError:
    """Return the error for a file that a bank needs and that does not exist."""
    return needed(path, "No such file or directory")


def needed(path: Place, reason: str) -> BankError:
    """Return the error for a file that a bank needs and that cannot be opened."""
    return BankError(
        f"{path}: {reason}",
        "The bank needs this file",
        "run `embank bank verify`, then `embank bank repair`",
    )


def too_large(path: Place, size: int, most: int) -> BankError:
    """Return the error for a file with more bytes than its kind can have."""
    return BankError(
        f"{path} has {size} bytes",
        f"What it holds takes at most {most}",
        "remove it; `embank bank verify` then says what is missing",
    )
