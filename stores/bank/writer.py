"""Creation of a bank and writing of a feature: one coordinator, exclusive commits, a seal at the end."""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from stores.backends import files, locks
from stores.backends.base import Stamp
from stores.backends.location import Place, place
from stores.bank import documents, integrity
from stores.bank.commit import Committer
from stores.bank.create import create_empty
from stores.bank.keys import FEATURE_VERSIONS, ChunkResult, FailedRow, FeatureKey
from stores.bank.layout import (
    MANIFEST,
    RUN_DOCUMENT,
    SIDE,
    ZARR,
    FeatureLayout,
    default_chunk_rows,
    images_key,
)
from stores.bank.links import refuse_feature_links
from stores.bank.markers import decode_marker, missing_chunks
from stores.bank.reader import Bank
from stores.bank.seal import (
    Seal,
    definition,
    key_path,
    read_feature,
    read_seal,
    seal_path,
    write_root_metadata,
)
from stores.errors import BankError
from stores.maintenance.cleanup import clean, first_damaged, remove_temporaries
from stores.manifest.restore import restore_manifest
from stores.outputs import check_bank

if TYPE_CHECKING:
    from stores.manifest.manifest import Manifest


def open_or_create(path: Place | str, manifest: "Manifest", *, chunk_rows: int | None = None) -> Bank:
    """Open the bank at `path`, or make one. If two processes race, one makes it and both open it.

    Args:
        path: an existing bank, an empty directory, or nothing yet.
        manifest: of the images. An existing bank must have the same `image_digest`; it keeps its own labels.
        chunk_rows: rows a chunk; None takes the bank's, or a default of about 1/64 of the rows.

    Raises:
        BankError: other images, another chunk size, an empty manifest, or a directory of something else.
        MachineFault: disk full or I/O error; run again.
    """
    path = place(path)
    if refuse_unfit(path, manifest, chunk_rows) is None:
        files.make_directory(path)
        files.make_directory(path / SIDE)
        with locks.held(path / SIDE / "lock"):
            if files.stat_if_there(path / RUN_DOCUMENT) is None:
                create_empty(path, manifest, chunk_rows or default_chunk_rows(len(manifest)))
    bank = Bank.open(path)
    _check_same(bank, manifest, chunk_rows)
    return restore_manifest(bank, manifest)


def bank_if_there(path: Place | str) -> Bank | None:
    """Open the bank at `path`, or return None if there is none. Raises BankError: it is damaged."""
    path = place(path)
    return None if files.stat_if_there(path / RUN_DOCUMENT) is None else Bank.open(path)


def as_in_bank(bank: Bank | None, manifest: "Manifest") -> "Manifest":
    """Return the manifest as the bank has it: with text uncleaned if an earlier version made that bank."""
    if manifest.before is None or bank is None:
        return manifest
    return manifest.as_made(bank.manifest_digest)


def refuse_unfit(path: Place | str, manifest: "Manifest", chunk_rows: int | None = None) -> Bank | None:
    """Refuse what `open_or_create` refuses; change nothing. Return the bank, or None if there is none yet.

    Raises:
        BankError, Refused: as there; also a place inside another bank.
    """
    bank = bank_if_there(path)
    refuse_misfit(path, bank, manifest, chunk_rows)
    return bank


def refuse_misfit(
    path: Place | str, bank: Bank | None, manifest: "Manifest", chunk_rows: int | None = None
) -> None:
    """Refuse a manifest that does not fit a bank, or a place where none can be made; change nothing.

    Args:
        path: of the bank.
        bank: as `bank_if_there` gave it.

    Raises:
        BankError, Refused: as `refuse_unfit`.
    """
    path = place(path)
    if len(manifest) == 0:
        raise BankError("A manifest without rows", "A bank needs at least one image", "check the manifest")
    if chunk_rows is not None and not 1 <= chunk_rows <= 1 << 20:
        raise BankError(f"{chunk_rows} rows a chunk", "It is between 1 and 1048576", "leave it out")
    if bank is None:
        _refuse_foreign(path)
        check_bank(path)
    else:
        _check_same(bank, manifest, chunk_rows)


def _refuse_foreign(path: Place) -> None:
    """Refuse a path that is neither absent, empty, nor left by an interrupted creation."""
    ours = {SIDE, MANIFEST, ZARR, "records"}
    entries = [name for name in _entries(path) if not name.startswith(f".{MANIFEST}.")]
    inside = [
        name
        for name in files.names(path / SIDE)
        if name not in ("lock", "leases", "columns", "tmp", "quarantine")
    ]
    if entries and (SIDE not in entries or inside or not ours.issuperset(entries)):
        raise BankError(
            f"{path} holds {entries[0] if entries[0] != SIDE else inside[0] if inside else entries[-1]} "
            f"and no {RUN_DOCUMENT}",
            "A new bank needs an empty directory of its own",
            f"choose another directory; if {path} was a bank, run `embank bank repair {path}`",
        )


def _entries(path: Place) -> list[str]:
    if files.is_not_a_folder(path):
        raise BankError(f"{path} is not a directory", "A bank is a directory", "choose another path")
    return files.names(path)


def _check_same(bank: Bank, manifest: "Manifest", chunk_rows: int | None) -> None:
    if bank.image_digest != manifest.image_digest or bank.rows != len(manifest):
        raise BankError(
            f"{bank.path} holds other images ({bank.rows} rows, image digest {bank.image_digest[:12]}; "
            f"the manifest has {len(manifest)}, {manifest.image_digest[:12]})",
            "A bank belongs to one list of images",
            "choose another bank, or the manifest it was made with",
        )
    if chunk_rows is not None and chunk_rows != bank.chunk_rows:
        raise BankError(
            f"{chunk_rows} rows a chunk",
            f"{bank.path} has {bank.chunk_rows} for all features",
            "leave it out",
        )


def refuse_other_labels(bank: Bank, manifest: "Manifest") -> None:
    """Refuse a manifest with other labels for the bank's images, which would be ignored.

    Raises:
        BankError: its digest is not the bank's.
    """
    if bank.manifest_digest != manifest.digest:
        raise BankError(
            f"{bank.path} was made with other labels, splits or groups "
            f"(manifest digest {bank.manifest_digest[:12]}; this one is {manifest.digest[:12]})",
            "A bank evaluates the labels it was made with",
            f"`embank bank relabel {bank.path} MANIFEST -o NEW` makes a bank with these labels and the same "
            f"features; or embed {bank.path / MANIFEST}",
        )


class FeatureWriter(contextlib.AbstractContextManager["FeatureWriter"]):
    """The writer of one feature of a bank, and its only coordinator while it lives.

    Starting it clears away what a killed run left: temporaries, chunk files without marker, broken markers.

    Args:
        bank: the bank.
        key: of the feature; its `images` must be of the bank.
        dim: length of an embedding.
        image_set: of the feature, if not of the images that the bank saw first (`stores.bank.contents`).
        version: of its layout; one that was begun keeps its own.

    Raises:
        Refused: another process is writing this feature.
        BankError: a key of other images, another dim, or documents that are damaged.
        MachineFault: disk full or I/O error; run again.
    """

    def __init__(
        self, bank: Bank, key: FeatureKey, dim: int, image_set: str = "", version: int = FEATURE_VERSIONS[-1]
    ) -> None:
        if key.images != images_key(bank.image_digest, image_set):
            raise BankError(
                f"a feature key for images {key.images[:12]}",
                f"{bank.path} holds images {bank.image_digest[:12]}",
                "make the key from the bank's own manifest",
            )
        if dim < 1:
            raise ValueError(f"dim {dim}")
        self.bank, self.key, self.dim = bank, key, dim
        self.layout = layout_in(bank, key, dim, image_set, version)
        self.committer = Committer(self.layout)
        refuse_feature_links(bank.path, key.name)
        files.make_directory(self.layout.side)
        self._lock = locks.coordinate(self.layout.side / "lock", f"Feature {key.name} of {bank.path}")
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        layout = self.layout
        for name in ("tmp", "quarantine"):
            files.make_directory(self.bank.path / SIDE / name)
        key = documents.encode(layout.key_document())
        self._create_or_check(key_path(self.bank.path, layout.name), key)
        files.make_directory(layout.side / "markers")
        for array in layout.arrays:
            files.make_directory(self.bank.path / layout.name / array / "c")
        for relative, data in layout.metadata_files().items():
            self._create_or_check(self.bank.path / relative, data)
        with locks.held(layout.side / "commit.lock"):
            if files.stat_if_there(seal_path(self.bank.path, layout.name)) is None:
                clean(layout)
            else:
                remove_temporaries(layout)
                self._refuse_damaged_chunks()

    def _refuse_damaged_chunks(self) -> None:
        """Refuse to recompute damaged chunks of a sealed feature: a repair compares them with the seal."""
        damaged = first_damaged(self.layout)
        if damaged is not None:
            raise BankError(
                f"Chunk {damaged} of {self.key.name} is damaged",
                "The files of a finished feature never change",
                f"run `embank bank repair {self.bank.path}`",
            )

    def _create_or_check(self, path: Place, data: bytes) -> None:
        # By renaming, which cannot tear the file on any file system; this is the only coordinator.
        present = files.read_if_there(path)
        if present is None:
            files.replace(path, data, files.temporary(self.bank.path / SIDE / "tmp", self.layout.name))
        elif present != data:
            raise BankError(
                f"{path} is damaged, or of another feature",
                f"Here it must describe {self.key.name} with {self.dim} dimensions",
                f"run `embank bank repair {self.bank.path}`",
            )
        files.sync_directory(path.parent)

    @property
    def todo(self) -> list[int]:
        """Indices of the chunks without marker, ascending."""
        return missing_chunks(self.layout)

    def bounds(self, index: int) -> tuple[int, int]:
        """Return the first row of a chunk and the row after its last."""
        return self.layout.grid.bounds(index)

    def commit(self, result: ChunkResult) -> bool:
        """Write one chunk and mark it done (`stores.bank.commit.Committer.commit`); from any thread."""
        return self.committer.commit(result)

    def write_provenance(self, body: Mapping[str, Any]) -> None:
        """Store the provenance of the run (device, versions, times), replacing an earlier one."""
        temp = files.temporary(self.bank.path / SIDE / "tmp", self.layout.name)
        documents.replace(self.layout.side / "provenance.json", body, temp)

    def has_provenance(self) -> bool:
        """Return whether the file that `write_provenance` wrote is present and intact."""
        try:
            return documents.read_if_there(self.layout.side / "provenance.json") is not None
        except documents.BrokenDocument:
            return False

    def seal(self) -> Seal:
        """Re-read every file, write the seal, list the feature in the bank's metadata.

        May be called again; then what has not been touched since is not read again.

        Raises:
            BankError: chunks are pending, or a file is not what its marker says.
            MachineFault: disk full or I/O error; run again.
        """
        if todo := self.todo:
            raise BankError(
                f"{len(todo)} of {self.layout.grid.chunks} chunks of {self.key.name} are pending",
                "A feature is finished when all of its chunks are",
                "run the same `embank embed` command again; it goes on where it stopped",
            )
        seal = self._make_seal()
        self._refuse_other_bank()
        stamps = files.stamps(self.bank.path, seal.files)
        self._refuse_broken(integrity.find_broken(self.bank.path, self._to_read(seal, stamps)))
        self._write_seal(seal, stamps)
        with locks.held(self.bank.path / SIDE / "lock"):
            write_root_metadata(self.bank.path)
        return seal

    def _to_read(self, seal: Seal, stamps: Mapping[str, Stamp | None]) -> integrity.Promises:
        """Return the files to verify before sealing: all but those that an equal seal has stamped."""
        sealed = read_seal(self.bank.path, self.layout.name)
        if sealed is None or sealed[0] != seal:
            return seal.files
        return integrity.unverified(self.bank.path, self.layout.name, sealed[1], seal.files, stamps)

    def _make_seal(self) -> Seal:
        layout, failures = self.layout, list[FailedRow]()
        promises: dict[str, integrity.FilePromise] = {}
        paths = [self.bank.path / layout.marker(index) for index in range(layout.grid.chunks)]
        for index, data in enumerate(files.each(self.bank.path, files.read, paths)):
            body = decode_marker(data, paths[index])
            promises.update(body["files"])
            promises[layout.marker(index)] = integrity.promise_of(data)
            failures += body["failures"]
        for relative, data in layout.metadata_files().items():
            promises[relative] = integrity.promise_of(data)
        key = f"{SIDE}/{layout.name}/key.json"
        promises[key] = integrity.promise_of(documents.encode(layout.key_document()))
        rows, pending = layout.grid.rows, sum("pending" in failure for failure in failures)
        return Seal(
            layout.name,
            rows,
            rows - len(failures),
            len(failures) - pending,
            promises,
            layout.key_document(),
            self.bank.manifest_digest,
            pending,
        )

    def _refuse_other_bank(self) -> None:
        """Refuse to go on if the bank is no longer that of this run, as after its disk has vanished."""
        if Bank.open(self.bank.path) != self.bank:
            raise BankError(
                f"{self.bank.path} is not the bank that it was when this run began",
                "A bank stays in its place while it is written",
                "see that its disk is mounted, then run the same command again",
            )

    def _refuse_broken(self, broken: Mapping[str, str]) -> None:
        for path, reason in broken.items():
            raise BankError(
                f"{integrity.describe(path)} of {self.key.name} is damaged: {path}: {reason}",
                "A feature is finished once every byte has been read back",
                f"run `embank bank repair {self.bank.path}`",
            )

    def _write_seal(self, seal: Seal, stamps: Mapping[str, Stamp | None]) -> None:
        path = seal_path(self.bank.path, self.layout.name)
        sealed = read_seal(self.bank.path, self.layout.name)
        if sealed is None:
            temp = files.temporary(self.bank.path / SIDE / "tmp", self.layout.name)
            documents.replace(path, seal.to_dict(), temp)
        elif sealed[0] != seal:
            raise BankError(
                f"{path} differs from the feature's files",
                "The files of a finished feature never change",
                f"run `embank bank repair {self.bank.path}`",
            )
        integrity.remember(self.bank.path, self.layout.name, files.read(path), stamps)

    def close(self) -> None:
        """Release the lock, so that another coordinator can start."""
        self._lock.unsign()
        self._lock.release()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def layout_in(
    bank: Bank, key: FeatureKey, dim: int, image_set: str = "", version: int = FEATURE_VERSIONS[-1]
) -> FeatureLayout:
    """Return the layout of a feature in a bank; one that was begun keeps its version."""
    begun = definition(bank.path, key.name)
    layout = FeatureLayout(bank.path, key, dim, bank.grid, version, image_set)
    return layout if begun is None else replace(layout, version=begun.version)


def write_certificate(bank: Bank, key: FeatureKey, body: Mapping[str, Any]) -> Place:
    """Store a decoder's parity certificate beside a feature, replacing an earlier one. Returns its path.

    Raises:
        BankError: the bank holds no such feature.
    """
    path = bank.path / SIDE / key.name / "certificate.json"
    read_feature(bank.path, key.name)
    documents.replace(path, body, files.temporary(bank.path / SIDE / "tmp", "certificate"))
    return path
