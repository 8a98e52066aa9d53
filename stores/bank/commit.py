"""Commit of one chunk: files that must agree, then a marker. Only the marker means "done".

Safety follows from the order. Each file is created exclusively and durably, in one fixed order, and a
committer that meets bytes other than its own withdraws. So of several committers whose bytes differ at most
one, the first to create the first file that differs, can get past it: no chunk is mixed, and no marker
describes another committer's file.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from stores.backends import files, locks
from stores.backends.location import Place
from stores.bank import documents, integrity
from stores.bank.encode import EncodedChunk, encode
from stores.bank.integrity import FilePromise, Promises
from stores.bank.keys import ChunkResult, Failure
from stores.bank.layout import SIDE, FeatureLayout
from stores.bank.markers import Marker, read_marker
from stores.errors import BankError, MachineFault
from stores.maintenance.cleanup import marker_fits


@dataclass(frozen=True)
class Committer:
    """Committer of chunks of a feature that `FeatureWriter` has prepared. Any number may work at once.

    Attributes:
        layout: of the feature; picklable, so that other processes can commit.
    """

    layout: FeatureLayout

    def commit(self, result: ChunkResult) -> bool:
        """Write one chunk and mark it done.

        Returns:
            True if this call completed the chunk; False if it was complete, or another committer is ahead
            with other bytes (then that one completes it, or the next start clears it away).

        Raises:
            MachineFault: disk full or I/O error. Nothing is marked done that is not; commit again or resume.
            BankError: no permission.
            ValueError: as `stores.bank.encode.encode`.
        """
        marker = self.layout.root / self.layout.marker(result.index)
        if files.stat_if_there(marker) is not None:
            return False
        chunk = encode(result, self.layout)
        with locks.held(self.layout.side / "commit.lock", shared=True) as lock:
            done = self.commit_held(chunk)
            if done and not lock.alive():
                self._make_sure(chunk.index, marker_document(self.layout, chunk)["files"])
            return done

    def adopt(self, index: int, source: Place) -> None:
        """Take a chunk over from another bank that holds this feature, by hard links or copies.

        Args:
            source: the other bank; its chunk is complete.

        Raises:
            BankError: the chunk's files or its marker are missing or damaged there.
            MachineFault: disk full or I/O error. Nothing is marked done that is not; adopt again.
        """
        path = source / self.layout.marker(index)
        body = read_marker(path)
        if not marker_fits(replace(self.layout, root=source), index, body):
            raise _unfit(path, source)
        with locks.held(self.layout.side / "commit.lock", shared=True) as lock:
            for relative, promise in body["files"].items():
                self._adopt_file(relative, source, promise)
            done = documents.create(self.layout.root / self.layout.marker(index), body, self._temporary())
            if done and not lock.alive():
                self._make_sure(index, body["files"])

    def _adopt_file(self, relative: str, source: Place, promise: FilePromise) -> None:
        path = self.layout.root / relative
        files.make_directory(path.parent)
        files.copy(source / relative, path, self._temporary())
        files.sync_file(path)  # A bank that was copied by hand may not have reached the disk yet.
        files.sync_directory(path.parent)
        if integrity.difference(files.digest(path), promise):
            raise _unfit(source / relative, source)

    def commit_held(self, chunk: EncodedChunk) -> bool:
        """Write and mark an encoded chunk, as `commit` does, for a caller that holds the commit lock."""
        marker = self.layout.root / self.layout.marker(chunk.index)
        if files.stat_if_there(marker) is not None:
            return False
        for path, data in chunk.files.items():
            if not self._create(path, data):
                return False
        body = marker_document(self.layout, chunk)
        self._read_back(body["files"])
        return documents.create(marker, body, self._temporary())

    def _make_sure(self, index: int, promised: Promises) -> None:
        """Remove a marker that was written too late.

        In a bucket no lock stops a process: one that was silent for too long may find that a clean-up has
        removed the files that its marker describes.
        """
        try:
            self._read_back(promised)
        except MachineFault:
            files.remove(self.layout.root / self.layout.marker(index))
            raise

    def _create(self, relative: str, data: memoryview) -> bool:
        """Create one chunk file. False if there is one with other bytes."""
        path = self.layout.root / relative
        files.make_directory(path.parent)
        if not files.create(path, data, self._temporary()):
            if files.digest(path) != (data.nbytes, hashlib.sha256(data).hexdigest()):
                return False
            files.sync_file(path)  # Whoever wrote the same bytes may have died before they reached the disk.
        files.sync_directory(path.parent)
        return True

    def _read_back(self, promised: Promises) -> None:
        for relative, promise in promised.items():
            if integrity.difference(files.digest(self.layout.root / relative), promise):
                raise MachineFault(
                    f"{self.layout.root / relative} reads back other bytes than were written",
                    "A chunk is done only when the disk gives back what it was given",
                    "check the disk and the memory, then run the same command again",
                )

    def _temporary(self) -> Place:
        return files.temporary(self.layout.root / SIDE / "tmp", self.layout.name)


def _unfit(path: Place, bank: Place) -> BankError:
    return BankError(
        f"{path} is damaged",
        "Only chunks that are what their markers promise are taken over",
        f"run `embank bank repair {bank}`, then the same command again",
    )


def marker_document(layout: FeatureLayout, chunk: EncodedChunk) -> Marker:
    """Make the body of a chunk's marker."""
    promises = {path: integrity.promise_of(data) for path, data in chunk.files.items()}
    return marker_of(layout, chunk.index, promises, chunk.failures)


def marker_of(
    layout: FeatureLayout,
    index: int,
    promises: Promises,
    failures: Iterable[Failure],
) -> Marker:
    """Make the body of a marker from a chunk's promises.

    Nothing in it differs between runs: no time, host or process.
    """
    start, stop = layout.grid.bounds(index)
    return {
        "schema": layout.version,
        "feature": layout.key.digest,
        "chunk": index,
        "start": start,
        "stop": stop,
        "files": dict(promises),
        "failures": [failure.as_dict for failure in failures],
    }
