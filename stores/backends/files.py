"""Storage functions for callers that have a path and no bank: each calls the path's backend.

`stores.backends.base.Backend` documents them. Callers with a `Bank` can use `bank.backend` instead, which is
the same object.
"""

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TypeVar

from stores.backends.base import TEMP_MARK, FileState, Stamp, StoredFile
from stores.backends.location import Place
from stores.backends.registry import backend_of

__all__ = ["TEMP_MARK", "Stamp"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def read(path: Place, most: int | None = None) -> bytes:
    """Read a file. Raises BankError where there is none."""
    return backend_of(path).read(path, most)


def read_if_there(path: Place, most: int | None = None) -> bytes | None:
    """Read a file; None where there is none."""
    return backend_of(path).read_if_there(path, most)


def read_range(path: Place, start: int, length: int) -> bytes:
    """Read up to `length` bytes from `start`, which lies inside the file."""
    return backend_of(path).read_range(path, start, length)


def digest(path: Place, expected: int | None = None) -> tuple[int, str] | None:
    """Return size and SHA-256 of a file; None where there is none."""
    return backend_of(path).digest(path, expected)


def stat_if_there(path: Place) -> FileState | None:
    """Return a file's state; None where there is none."""
    return backend_of(path).stat_if_there(path)


def stamps(root: Place, relatives: Collection[str]) -> dict[str, Stamp | None]:
    """Return the stamps of many files below a folder."""
    return backend_of(root).stamps(root, relatives)


def names(folder: Place) -> list[str]:
    """Return the sorted names right below a folder."""
    return backend_of(folder).names(folder)


def tree(folder: Place) -> tuple[list[Place], list[Place]]:
    """List all files below a folder, and all folders, itself included, the innermost first."""
    return backend_of(folder).tree(folder)


def inventory(folder: Place) -> list[StoredFile]:
    """List all files below a folder with sizes and times."""
    return backend_of(folder).inventory(folder)


def temporary(folder: Place, owner: str) -> Place:
    """Return a fresh name in a folder that shows whose it is."""
    path: Place = backend_of(folder).temporary(folder, owner)
    return path


def create(path: Place, data: bytes | memoryview, temp: Place) -> bool:
    """Create a file, whole and exclusively. False if something is there already."""
    return backend_of(path).create(path, data, temp)


def replace(path: Place, data: bytes, temp: Place) -> None:
    """Write a file at `path` atomically and durably. Only for what can be derived again."""
    backend_of(path).replace(path, data, temp)


def copy(source: Place, path: Place, temp: Place) -> bool:
    """Create a file with the bytes of another, of any storage, exclusively. False if something is there."""
    backend = backend_of(path)
    if backend_of(source) is backend:
        return backend.copy(source, path, temp)
    return backend.create(path, read(source), temp)


def move(source: Place, target: Place) -> bool:
    """Rename a file durably, within one storage; return False if there was none."""
    return backend_of(source).move(source, target)


def remove(path: Place) -> None:
    """Remove a file, if it exists."""
    backend_of(path).remove(path)


def remove_tree(folder: Place) -> None:
    """Remove a folder and all that is in it, durably."""
    backend_of(folder).remove_tree(folder)


def each(root: Place, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Call a function that touches the storage of `root` with every item; at once where it waits."""
    return backend_of(root).each(function, items)


def make_directory(folder: Place) -> None:
    """Create a folder and its missing parents, durably."""
    backend_of(folder).make_directory(folder)


def remove_directory(folder: Place) -> None:
    """Remove a folder if nothing is in it."""
    backend_of(folder).remove_directory(folder)


def remove_link(path: Place) -> None:
    """Remove a symbolic link to a folder elsewhere; anything else stays."""
    backend_of(path).remove_link(path)


def sync_directory(folder: Place) -> None:
    """Make the names in a folder survive a power cut."""
    backend_of(folder).sync_directory(folder)


def sync_file(path: Place) -> None:
    """Make a file's bytes survive a power cut."""
    backend_of(path).sync_file(path)


def is_not_a_folder(path: Place) -> bool:
    """Return whether something other than a folder is there."""
    return backend_of(path).is_not_a_folder(path)


def local_path(path: Place) -> Path | None:
    """Return the path by which any program of this machine reaches a file; None if there is none."""
    return backend_of(path).local_path(path)


def why_unwritable(path: Place) -> str:
    """Return why no folder can be made at `path`, as far as can be told; else nothing."""
    return backend_of(path).why_unwritable(path)
