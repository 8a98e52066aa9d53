"""Reading a bank: sealed features as read-only arrays, mapped from their files without copying.

Imports neither pandas nor zarr: a study rerun from the shell opens its features in milliseconds.
"""

import builtins
import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stores.backends import files
from stores.backends.links import refuse_links
from stores.backends.location import Place, place
from stores.backends.mmap import map_chunks
from stores.bank import document_schemas, documents, integrity
from stores.bank.feature_info import FeatureInfo
from stores.bank.keys import CONTENT_BYTES, STATUS_OK, Failure, FeatureKey
from stores.bank.layout import (
    COLUMNS,
    MANIFEST,
    RUN_DOCUMENT,
    SIDE,
    VOCABULARIES,
    FeatureLayout,
    Grid,
    images_key,
)
from stores.bank.names import Roster, unfinished
from stores.bank.seal import Seal, definition, misplaced, read_feature, read_seal, seal_path
from stores.errors import BankError

if TYPE_CHECKING:
    from stores.bank.labelled import Labelled
    from stores.bank.table import BankTable
    from stores.manifest.manifest import Manifest

#: Bytes that precede the numbers of an .npy file at most.
_HEADER = 1 << 14
#: Rows copied at a time.
_BLOCK = 1 << 14


@dataclass(frozen=True)
class Bank:
    """A bank of embeddings, on disk or in a bucket. `Bank.open` reads its run document and no other file.

    Attributes:
        path: its directory, or the prefix of its objects.
        rows: number of images; row i is image i of the manifest in every array.
        chunk_rows: rows a chunk, the same for all features.
        image_digest: what the embeddings depend on (`Manifest.image_digest`).
        manifest_digest: of the whole manifest, labels and splits included.
        files: SHA-256 of the manifest and the label columns, by relative path.
    """

    path: Place
    rows: int
    chunk_rows: int
    image_digest: str
    manifest_digest: str
    files: Mapping[str, str]

    @classmethod
    def open(cls, path: Place | str) -> "Bank":
        """Open a bank.

        Raises:
            BankError: no bank there, a damaged run document, or another schema version.
            PathRefused: folders of it are links, or the run document is no plain file.
        """
        path = place(path)
        refuse_links(path)
        body = documents.read_if_there(path / RUN_DOCUMENT)
        if body is None:
            raise BankError(
                f"{path} is not a bank (it has no {RUN_DOCUMENT})",
                "A bank is a directory or a prefix made by `embank embed`",
                f"check the path; if {path / SIDE} is there, run `embank bank repair {path}`",
            )
        document_schemas.check(body, document_schemas.RUN, path / RUN_DOCUMENT)
        fields = ("rows", "chunk_rows", "image_digest", "manifest_digest", "files")
        return cls(path, **{field: body[field] for field in fields})

    def __repr__(self) -> str:
        """A table of the features; reads their documents, no embedding, and raises nothing."""
        return self._table().text()

    def _repr_html_(self) -> str:
        return self._table().html()

    def _table(self) -> "BankTable":
        from stores.bank.table import BankTable

        return BankTable.of(self.path, self.rows, self._info)

    @property
    def grid(self) -> Grid:
        return Grid(self.rows, self.chunk_rows)

    def holds(self, layout: FeatureLayout) -> bool:
        """Whether a feature is of this bank's rows and images."""
        images = images_key(self.image_digest, layout.image_set)
        return layout.grid == self.grid and layout.key.images == images

    def features(self, name: str | None = None) -> "FeatureSet":
        """A sealed feature.

        Args:
            name: its name, chosen or full, a model's slug, or a beginning that fits one feature; None if the
                bank has one sealed feature only.

        Raises:
            BankError: none such, several such, not sealed, or damaged.
        """
        roster = Roster.of(self.path)
        full = roster.find(name)
        return FeatureSet(self, full, roster.title(full))

    def select(self, name: str | None = None) -> "builtins.list[str]":
        """Full names of all features that a word fits, sealed or not: as `features`, but all of a slug.

        Raises:
            BankError: none such, or a beginning of several names.
        """
        roster = Roster.of(self.path)
        chosen = roster.entries if name is None else roster.matching(name)
        if name is not None and not chosen:
            raise roster.unknown(name)
        return [entry.feature for entry in chosen]

    def list(self) -> "builtins.list[FeatureInfo]":
        """All features, sealed or not, but those that have lost their key, which `verify` reports.

        Raises:
            BankError: another document is damaged.
        """
        roster = Roster.of(self.path)
        return [
            self._info(entry.feature, roster.title(entry.feature))
            for entry in roster.entries
            if entry.key is not None
        ]

    def _info(self, name: str, title: str) -> FeatureInfo:
        layout = definition(self.path, name) or read_feature(self.path, name)
        sealed = read_seal(self.path, name)
        if sealed is not None:
            return _info_of(layout, sealed[0], title)
        done = failed = waiting = size = 0
        for entry in files.names(layout.side / "markers"):
            marker = _marker(layout.side / "markers" / entry)
            done += marker["stop"] - marker["start"]
            failed += len(marker["failures"])
            waiting += sum("pending" in failure for failure in marker["failures"])
            size += sum(each["size"] for each in marker["files"].values())
        key = layout.key
        ok, failed, pending = done - failed, failed - waiting, self.rows - done + waiting
        return FeatureInfo(
            name, key, layout.dim, key.dtype, self.rows, ok, failed, pending, size, False, title
        )

    def title(self, name: str) -> str:
        """What people call a feature, by its full name (`stores.bank.names`)."""
        return Roster.of(self.path).title(name)

    def is_sealed(self, name: str) -> bool:
        """Whether a feature, by its full name, is finished."""
        return files.stat_if_there(seal_path(self.path, name)) is not None

    def provenance(self, name: str) -> dict[str, Any]:
        """What is known about the run that made a feature. Raises BankError if lost or damaged."""
        path = self.path / SIDE / name / "provenance.json"
        body = documents.read_if_there(path)
        if body is None:
            raise BankError(
                f"{path} is missing",
                "It says how the feature was made",
                "run the same `embank embed` command again",
            )
        return body

    def describe(self, name: str, *, failures: bool = False) -> dict[str, Any]:
        """All that the bank knows about a feature, for `embank bank show`.

        Returns:
            `{name, title, key, counts, provenance, certificate}`, the latter two None if there are none; with
            `failures`, also `[{row, code, detail}]`.
        """
        title, side = self.title(name), self.path / SIDE / name
        info = self._info(name, title)
        counted = ("rows", "ok", "failed", "pending", "dim", "bytes", "sealed")
        body: dict[str, Any] = {
            "name": name,
            "title": title,
            "key": info.key.to_dict(),
            "counts": {field: getattr(info, field) for field in counted},
            "provenance": documents.read_if_there(side / "provenance.json"),
            "certificate": documents.read_if_there(side / "certificate.json"),
        }
        if failures:
            entries = files.names(side / "markers")
            body["failures"] = [
                failure for entry in entries for failure in _marker(side / "markers" / entry)["failures"]
            ]
        return body

    def manifest(self) -> "Manifest":
        """The manifest, as it was when the bank was made (imports pyarrow). Raises BankError if damaged."""
        from stores.manifest.manifest import Manifest

        path = self.path / MANIFEST
        if files.stat_if_there(path) is None:
            raise _damaged(path, self.path, "missing")
        if not _is_parquet(path) or (files.digest(path) or (0, ""))[1] != self.files[MANIFEST]:
            raise _damaged(path, self.path)
        manifest = Manifest.read(path, allow_outside=True)
        if len(manifest) != self.rows:
            raise _damaged(path, self.path)
        return manifest

    def column(self, name: str) -> tuple[npt.NDArray[np.int32], "builtins.list[str]"]:
        """A categorical column of the manifest, without reading the manifest.

        Args:
            name: `label`, `split` or `group`.

        Returns:
            Codes int32 [rows] (-1 where missing), and the vocabulary they index, sorted by bytes.

        Raises:
            BankError: another name, or a damaged file.
        """
        if name not in COLUMNS:
            raise BankError(
                f"column {name!r}",
                f"The bank keeps {', '.join(COLUMNS)} at hand",
                "read others from `Bank.manifest()`",
            )
        folder = f"{SIDE}/columns"
        path = self.path / folder / VOCABULARIES
        vocabularies = documents.decode(self._side_file(f"{folder}/{VOCABULARIES}"), path)
        names = document_schemas.check(vocabularies, document_schemas.VOCABULARY, path)["columns"][name]
        codes = _codes(self._side_file(f"{folder}/{name}.npy"), self.rows, len(names))
        if codes is None:
            raise _damaged(self.path / folder / f"{name}.npy", self.path)
        return codes, names

    def _side_file(self, relative: str) -> bytes:
        """A file named in the run document, checked against its digest."""
        # Codes take four bytes a row behind a header.
        most = 4 * self.rows + _HEADER if relative.endswith(".npy") else documents.MAX_BYTES
        state = files.stat_if_there(self.path / relative)
        if state is not None and state.st_size > most:
            raise _damaged(self.path / relative, self.path)
        data = files.read_if_there(self.path / relative)
        if data is None or integrity.promise_of(data)["sha256"] != self.files[relative]:
            raise _damaged(self.path / relative, self.path, "missing" if data is None else "damaged")
        return data


def _is_parquet(path: Place) -> bool:
    """Whether a file begins and ends as Parquet; whatever does not may be large, and need not be read."""
    if not isinstance(path, Path):
        return True
    with files.faults(path):
        descriptor = files.open_plain(path)
        try:
            last = max(0, os.fstat(descriptor).st_size - 4)
            return {os.pread(descriptor, 4, at) for at in (0, last)} == {b"PAR1"}
        finally:
            os.close(descriptor)


def _damaged(path: Place, bank: Place, how: str = "damaged") -> BankError:
    return BankError(
        f"{path} is {how}",
        "It must be what the run document promises",
        manifest_remedy(bank) if path.name == MANIFEST else f"run `embank bank repair {bank}`",
    )


def manifest_remedy(bank: Place) -> str:
    """What puts back a bank's manifest: its image ids are nowhere else in the bank."""
    return (
        f"run `embank bank repair {bank} --manifest MANIFEST` with the manifest that the bank was made with, "
        "or the copy of it in an export"
    )


def _codes(data: bytes, rows: int, names: int) -> npt.NDArray[np.int32] | None:
    """The codes of a column's .npy file; None if it holds anything else."""
    stream = io.BytesIO(data)
    try:
        np.lib.format.read_magic(stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    except (ValueError, SyntaxError, TypeError, OverflowError, MemoryError, RecursionError):
        return None  # the header is a Python literal, which fails in any of these ways
    start = stream.tell()
    if shape != (rows,) or dtype != np.dtype("<i4") or len(data) - start != 4 * rows:
        return None
    codes = np.frombuffer(data, "<i4", offset=start).astype(np.int32)
    return codes if codes.min() >= -1 and codes.max() < names else None


def _marker(path: Place) -> dict[str, Any]:
    return document_schemas.check(documents.read(path), document_schemas.MARKER, path)


def _info_of(layout: FeatureLayout, seal: Seal, title: str) -> FeatureInfo:
    """A sealed feature's line; its size follows from the layout."""
    size = sum(promise["size"] for path, promise in seal.files.items() if "/c/" in path)
    key = layout.key
    return FeatureInfo(
        layout.name,
        key,
        layout.dim,
        key.dtype,
        seal.rows,
        seal.ok,
        seal.failed,
        seal.pending,
        size,
        True,
        title,
    )


class FeatureSet:
    """A sealed feature, for reading: row i belongs to image i of the manifest.

    Opening compares every file's stamp with the cache and re-reads whatever changed; what lies in a bucket is
    checked as it arrives (`stores.backends.remote_read`): nothing damaged is used.

    Args:
        bank: where it lies.
        name: of the feature.
        title: what people call it.

    Raises:
        BankError: not sealed, damaged, made by another schema, or of another bank.
    """

    def __init__(self, bank: Bank, name: str, title: str) -> None:
        self.bank, self.name, self.title = bank, name, title
        sealed = read_seal(bank.path, name)
        if sealed is None:
            raise unfinished(bank.path, name)
        self._seal, self._seal_bytes = sealed
        self._layout = read_feature(bank.path, name)
        if not bank.holds(self._layout):
            raise misplaced(seal_path(bank.path, name), name)
        self._check_files()

    def _check_files(self) -> None:
        root, key = self.bank.path, f"{SIDE}/{self.name}/key.json"
        if isinstance(root, Path):
            integrity.ensure(root, self.name, self._seal_bytes, self._seal.files)
        elif integrity.promise_of(documents.encode(self._layout.key_document())) != self._seal.files[key]:
            raise misplaced(root / key, self.name)

    def __len__(self) -> int:
        return self.bank.rows

    def __repr__(self) -> str:
        from stores.bank.table import plain

        info = self.info
        shape = f"{info.rows} x {info.dim} {info.dtype}"
        counts = f"{info.ok} ok, {info.failed} failed, {info.pending} pending"
        return f"FeatureSet({plain(self.title)} in {plain(str(self.bank.path))}: {shape}, {counts})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle where the feature lies, not its numbers: another process maps the same files."""
        return _opened_again, (self.bank.path, self.name, self.seal_digest)

    @property
    def key(self) -> FeatureKey:
        """What made the embeddings."""
        return self._layout.key

    @property
    def seal_digest(self) -> str:
        """SHA-256 of the seal, and so of every byte of the feature."""
        return hashlib.sha256(self._seal_bytes).hexdigest()

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self._layout.dim

    @property
    def info(self) -> FeatureInfo:
        """Counts and sizes."""
        return _info_of(self._layout, self._seal, self.title)

    @cached_property
    def array(self) -> npt.NDArray[Any]:
        """Embeddings [rows, dim], float16 or float32 as stored, read-only; NaN where the row failed.

        Mapped from the chunk files (or fetched copies) as one contiguous array, read as it is used.
        """
        return self._map("embedding", np.dtype(self.key.dtype), (self.dim,))

    @cached_property
    def norm(self) -> npt.NDArray[np.float32]:
        """L2 norms float32 [rows] before rounding, read-only; NaN where the row failed."""
        return self._map("norm", np.dtype("<f4"), ())

    @cached_property
    def status(self) -> npt.NDArray[np.uint8]:
        """uint8 [rows], read-only: 1 ok, 2 failed, 0 not embedded yet."""
        return self._map("status", np.dtype("u1"), ())

    @cached_property
    def contents(self) -> npt.NDArray[np.uint8]:
        """SHA-256 of the image file that each row was made from: uint8 [rows, 32], read-only.

        Zeros where it was not read, or where the feature was made before embank kept contents.
        """
        if self._layout.has_contents:
            return self._map("content", np.dtype("u1"), (CONTENT_BYTES,))
        empty = np.zeros((self.bank.rows, CONTENT_BYTES), np.uint8)
        empty.flags.writeable = False
        return empty

    @property
    def layout(self) -> FeatureLayout:
        """Where the feature's parts lie."""
        return self._layout

    @cached_property
    def ok(self) -> npt.NDArray[np.bool_]:
        """bool [rows]: rows that have an embedding."""
        return np.equal(self.status, STATUS_OK)

    def _map(self, array: str, dtype: np.dtype[Any], tail: tuple[int, ...]) -> npt.NDArray[Any]:
        layout = self._layout
        chunks = [layout.chunk_file(array, index) for index in range(layout.grid.chunks)]
        shape = (layout.payload(array), dtype, tail)
        root = self.bank.path
        if isinstance(root, Path):
            return map_chunks([root / chunk for chunk in chunks], *shape)[: self.bank.rows]
        from stores.backends.remote_read import fetch_chunks

        return fetch_chunks(root, chunks, self._seal.files, self._seal_bytes, *shape)[: self.bank.rows]

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """Label codes int32 [rows], -1 where missing; `bank.column("label")` has the names."""
        return self.bank.column("label")[0]

    def labelled(self, label: str = "label", split: str | None = None) -> "Labelled":
        """Rows that have an embedding and a label, their codes, and the names of the classes.

        Args:
            label: a column of the manifest; those other than label, split and group import pyarrow.
            split: take rows of this split only, e.g. `train`; None for all.

        Raises:
            Refused: no such split, no usable row, or a column of measurements or of uncertain findings.
            ManifestError: no such column. BankError: a damaged file.
        """
        from stores.bank.labelled import labelled

        return labelled(self.bank, self.ok, label, split)

    def xy(
        self, label: str = "label", split: str | None = None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Copy the usable rows and their labels, as scikit-learn takes them: `fit(*features.xy())`.

        Args:
            label, split: as for `labelled`, which also has the rows' places and the names of the classes.

        Returns:
            X float32 [n, dim] in the bank's order, whatever is stored, since few of scikit-learn's methods
            know float16; y int64 [n], the same code for the same label in every split.

        Raises:
            Refused, ManifestError, BankError: as `labelled`.
        """
        chosen = self.labelled(label, split)
        x = np.empty((len(chosen.rows), self.dim), np.float32)
        for start in range(0, len(x), _BLOCK):  # no second copy of them all in the stored dtype
            x[start : start + _BLOCK] = self.array[chosen.rows[start : start + _BLOCK]]
        return x, chosen.codes

    @property
    def image_ids(self) -> list[str]:
        """The manifest's image ids, in row order (imports pyarrow)."""
        return self.bank.manifest().image_ids

    def failures(self) -> list[Failure]:
        """Why rows have no embedding, in row order; `pending` of those that are not embedded yet."""
        markers = files.each(self.bank.path, self._marker, range(self._layout.grid.chunks))
        return [Failure(**failure) for marker in markers for failure in marker["failures"]]

    def _marker(self, index: int) -> dict[str, Any]:
        root, relative = self.bank.path, self._layout.marker(index)
        if isinstance(root, Path):
            return _marker(root / relative)
        from stores.backends.remote_read import read_promised

        body = documents.decode(read_promised(root, relative, self._seal.files[relative]), root / relative)
        return document_schemas.check(body, document_schemas.MARKER, root / relative)

    def take(self, rows: npt.ArrayLike) -> npt.NDArray[Any]:
        """Copy rows, in the order given: [len(rows), dim] in the stored dtype. Raises IndexError outside."""
        return np.asarray(self.array[np.asarray(rows, dtype=np.intp)])


def _opened_again(path: Place, name: str, seal_digest: str) -> FeatureSet:
    """A pickled feature. Raises BankError if it is not the one that was pickled any more."""
    features = Bank.open(path).features(name)
    if features.seal_digest != seal_digest:
        raise BankError(
            f"Feature {name} in {path} has changed since it was pickled",
            "A pickle names the very numbers that it was made of",
            "open the bank again, and pickle what it gives",
        )
    return features
