"""A model of a disk that keeps only what was synced.

After a power cut, a file has the bytes of its last fsync, or any of what was written since (all, a part,
zeros); a name in a directory is as at the directory's last fsync, or as after any of the changes since,
independently of other names: the worst that POSIX allows, worse than any journal.
"""

# The stores' system calls on purpose, see `stores.backends.files`.
# ruff: noqa: PTH102, PTH105, PTH108, PTH110

import errno
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class _File:
    """A file's bytes as programs see them, and as they are guaranteed to be on the disk."""

    now: bytes = b""
    synced: bytes = b""


@dataclass
class _Folder:
    """A directory: the states of each name since the last fsync, oldest first; None means absent."""

    names: dict[str, "list[_File | _Folder | None]"] = field(default_factory=dict)

    def now(self) -> "dict[str, _File | _Folder]":
        """Return the entries as programs see them."""
        return {name: entry for name, states in self.names.items() if (entry := states[-1]) is not None}

    def change(self, name: str, entry: "_File | _Folder | None") -> None:
        self.names.setdefault(name, [None]).append(entry)

    def sync(self) -> None:
        self.names = {name: [states[-1]] for name, states in self.names.items()}


class Disk:
    """An `os` that executes calls below `root` and tracks what would survive a power cut.

    Args:
        root: a folder, whose present contents are on the disk.
        tick: called after each change with the number of changes so far; may raise to end the run.
    """

    def __init__(self, root: Path, tick: Callable[[int], None]) -> None:
        self.root, self._tick, self.changes, self.dead = root, tick, 0, False
        self.top = _load(root)
        self._open: dict[int, _File | _Folder] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _changed(self) -> None:
        self.changes += 1
        try:
            self._tick(self.changes)
        except BaseException:
            self.dead = True
            raise

    def _check_power(self) -> None:
        if self.dead:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def _find(self, path: Any) -> tuple[_Folder, str]:
        """Return the folder that contains a path, and its name there."""
        parts = Path(path).relative_to(self.root).parts
        folder = self.top
        for part in parts[:-1]:
            inner = folder.now()[part]
            assert isinstance(inner, _Folder)
            folder = inner
        return folder, parts[-1]

    def _held(self, path: Any) -> _File | _Folder:
        if Path(path) == self.root:
            return self.top
        folder, name = self._find(path)
        return folder.now()[name]

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        self._check_power()
        existed = os.path.exists(path)
        descriptor = os.open(path, flags, mode)
        if Path(path).is_relative_to(self.root):
            if not existed:
                folder, name = self._find(path)
                folder.change(name, _File())
                self._changed()
            self._open[descriptor] = self._held(path)
        return descriptor

    def close(self, descriptor: int) -> None:
        self._open.pop(descriptor, None)
        os.close(descriptor)

    def write(self, descriptor: int, data: Any) -> int:
        self._check_power()
        count = os.write(descriptor, data)
        self._refresh(descriptor)
        return count

    def pwrite(self, descriptor: int, data: Any, offset: int) -> int:
        self._check_power()
        count = os.pwrite(descriptor, data, offset)
        self._refresh(descriptor)
        return count

    def ftruncate(self, descriptor: int, size: int) -> None:
        self._check_power()
        os.ftruncate(descriptor, size)
        self._refresh(descriptor)

    def _refresh(self, descriptor: int) -> None:
        file = self._open[descriptor]
        assert isinstance(file, _File)
        file.now = _bytes_of(descriptor)
        self._changed()

    def fsync(self, descriptor: int) -> None:
        self._check_power()
        entry = self._open[descriptor]
        if isinstance(entry, _Folder):
            entry.sync()
        else:
            entry.now = entry.synced = _bytes_of(descriptor)
        self._changed()

    def link(self, source: Any, target: Any) -> None:
        self._check_power()
        os.link(source, target)
        entry = self._held(source)
        folder, name = self._find(target)
        folder.change(name, entry)
        self._changed()

    def replace(self, source: Any, target: Any) -> None:
        self._check_power()
        os.replace(source, target)
        entry = self._held(source)
        for path, new_entry in ((target, entry), (source, None)):
            folder, name = self._find(path)
            folder.change(name, new_entry)
        self._changed()

    def unlink(self, path: Any) -> None:
        self._check_power()
        os.unlink(path)
        folder, name = self._find(path)
        folder.change(name, None)
        self._changed()

    def mkdir(self, path: Any, mode: int = 0o777) -> None:
        self._check_power()
        os.mkdir(path, mode)
        folder, name = self._find(path)
        folder.change(name, _Folder())
        self._changed()

    def survivors(self, target: Path, chance: random.Random) -> None:
        """Write to `target` one of the states that a power cut now could leave, drawn from `chance`."""
        _write_survivors(self.top, target, chance, chance.choice((0.0, 0.5, 1.0)))


def _bytes_of(descriptor: int) -> bytes:
    return Path(f"/proc/self/fd/{descriptor}").read_bytes()


def _load(path: Path) -> _Folder:
    folder = _Folder()
    for entry in path.iterdir():
        loaded: _File | _Folder
        loaded = _load(entry) if entry.is_dir() else _File(entry.read_bytes(), entry.read_bytes())
        folder.names[entry.name] = [loaded]
    return folder


def _write_survivors(folder: _Folder, target: Path, chance: random.Random, luck: float) -> None:
    """Write what survives of a folder: for `luck` 0 synced states, for 1 all changes, else drawn by name."""
    target.mkdir()
    for name, states in folder.names.items():
        survivor = chance.choice(states) if 0 < luck < 1 else states[-1 if luck else 0]
        if isinstance(survivor, _Folder):
            _write_survivors(survivor, target / name, chance, luck)
        elif survivor is not None:
            (target / name).write_bytes(_bytes_left(survivor, chance))


def _bytes_left(file: _File, chance: random.Random) -> bytes:
    if file.now == file.synced:
        return file.now
    length = chance.randrange(len(file.now) + 1)
    zeros = file.now[:length] + bytes(len(file.now) - length)
    return chance.choice((file.synced, file.now, file.now[:length], zeros))
