"""Reading of the files that a seal covers, on disk or fetched, so that no damaged byte is used.

Files that can be mapped are verified when the feature is opened, and read in place. Others are
fetched, all at once, and checked against the seal as they arrive. What was fetched stays in a cache folder,
one folder a seal, so that the next evaluation reads from disk; where there is no such folder, or others can
write to it, in memory.
"""

import hashlib
import mmap
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from stores.backends import deadlines, disk, files, private
from stores.backends.base import Backend
from stores.backends.location import Place
from stores.backends.mmap import map_chunks
from stores.bank import integrity
from stores.bank.layout import SIDE
from stores.errors import BankError

#: Chunks held in memory at once while they are checked and written.
_AT_ONCE = 8

Item = TypeVar("Item")


@dataclass(frozen=True)
class SealedFiles(ABC):
    """The files of a sealed feature.

    Attributes:
        backend: of the storage.
        root: of the bank.
        feature: full name.
        seal: bytes of the seal.
        promises: of the seal: relative path -> size and SHA-256.
    """

    backend: Backend[Any]
    root: Place
    feature: str
    seal: bytes
    promises: integrity.Promises

    @abstractmethod
    def ensure(self) -> None:
        """Verify all files that reading does not verify. Raises BankError naming a damaged one."""

    @abstractmethod
    def read(self, relative: str) -> bytes:
        """Read one file. Raises BankError if it is missing, or known not to be what was sealed."""

    @abstractmethod
    def chunks(
        self, relatives: Sequence[str], payload: int, dtype: np.dtype[Any], tail: tuple[int, ...]
    ) -> npt.NDArray[Any]:
        """Give the payloads of chunk files, one after another, as `Backend.map_chunks` does.

        Args:
            relatives: the chunks, in order, relative to the bank.
            payload, dtype, tail: as there.

        Raises:
            BankError: a chunk is missing or damaged. MachineFault: the storage fails, or the disk is full.
        """

    @abstractmethod
    def local(self, relatives: Sequence[str]) -> tuple[list[Path], str] | None:
        """Find chunk files on this machine, and verify those that have changed since they were last verified.

        Returns:
            Their paths, and what helps where one turns out to be damaged; None where `chunks` gives memory
            that was verified as it arrived.

        Raises:
            BankError, MachineFault: as `chunks`.
        """


def sealed_files(
    backend: Backend[Any], root: Place, feature: str, seal: bytes, promises: integrity.Promises
) -> SealedFiles:
    """Return the reader of a sealed feature's files that suits their storage."""
    kind = _Mapped if backend.maps_files else _Fetched
    return kind(backend, root, feature, seal, promises)


class _Mapped(SealedFiles):
    def ensure(self) -> None:
        integrity.ensure(self.root, self.feature, self.seal, self.promises)

    def read(self, relative: str) -> bytes:
        return self.backend.read(self.root / relative)

    def chunks(
        self, relatives: Sequence[str], payload: int, dtype: np.dtype[Any], tail: tuple[int, ...]
    ) -> npt.NDArray[Any]:
        return self.backend.map_chunks([self.root / path for path in relatives], payload, dtype, tail)

    def local(self, relatives: Sequence[str]) -> tuple[list[Path], str] | None:
        self.ensure()
        paths = [self.backend.local_path(self.root / path) for path in relatives]
        here = [path for path in paths if path is not None]
        return (here, f"run `embank bank repair {self.root}`") if len(here) == len(paths) else None


class _Fetched(SealedFiles):
    def ensure(self) -> None:
        """Do nothing: all data are checked as they arrive."""

    def read(self, relative: str) -> bytes:
        promise = self.promises[relative]
        for _ in range(2):  # Data that were damaged in transit are intact at the second attempt.
            data = self.backend.read(self.root / relative)
            reason = integrity.difference((len(data), hashlib.sha256(data).hexdigest()), promise)
            if not reason:
                return data
        raise BankError(
            f"{integrity.describe(relative)} is damaged: {self.root / relative}: {reason}",
            "Nothing is evaluated that differs from what was written",
            f"run `embank bank repair {self.root}`",
        )

    def chunks(
        self, relatives: Sequence[str], payload: int, dtype: np.dtype[Any], tail: tuple[int, ...]
    ) -> npt.NDArray[Any]:
        copies = self._copies(relatives)
        if copies is None:
            return self._in_memory(relatives, payload, dtype, tail)
        return map_chunks(copies, payload, dtype, tail)

    def local(self, relatives: Sequence[str]) -> tuple[list[Path], str] | None:
        copies = self._copies(relatives)
        if copies is None:
            return None
        home = copies[0].parents[relatives[0].count("/")]
        return copies, f"remove {home}, which holds copies, and run the same command again"

    def _copies(self, relatives: Sequence[str]) -> list[Path] | None:
        """Fetch what is missing in the cache folder; None where there is none to be trusted."""
        folder = private.cache_folder()
        if folder is None:
            return None
        home = folder / "banks" / hashlib.sha256(self.seal).hexdigest()
        copies = [home / relative for relative in relatives]
        objection = private.objection_below(folder, copies)
        if objection:
            private.distrust_cache(objection)
            return None
        self._fill(home, relatives)
        return copies

    def _in_memory(
        self, relatives: Sequence[str], payload: int, dtype: np.dtype[Any], tail: tuple[int, ...]
    ) -> npt.NDArray[Any]:
        buffer = mmap.mmap(-1, payload * len(relatives))

        def fetch(index: int) -> None:
            buffer[index * payload : (index + 1) * payload] = self.read(relatives[index])[:payload]

        self._at_once(fetch, range(len(relatives)))
        array = np.frombuffer(buffer, dtype=dtype).reshape(-1, *tail)
        array.flags.writeable = False
        return array

    def _fill(self, home: Path, relatives: Sequence[str]) -> None:
        """Verify the cached copies like any bank's files; fetch those that are missing or damaged."""
        temporaries = home / SIDE / "tmp"

        def fetch(relative: str) -> None:
            data = self.read(relative)
            with disk.faults(home / relative):
                private.make_folder((home / relative).parent)
                files.replace(home / relative, data, files.temporary(temporaries, "fetched"))
                (home / relative).chmod(0o600)

        with disk.faults(temporaries):
            private.make_folder(temporaries)
        wanted = {relative: self.promises[relative] for relative in relatives}
        integrity.ensure(home, self.feature, self.seal, wanted, lambda broken: self._at_once(fetch, broken))

    def _at_once(self, function: Callable[[Item], None], items: Iterable[Item]) -> None:
        threads = min(_AT_ONCE, self.backend.parallel_reads)
        list(deadlines.at_once(threads, function, items))
