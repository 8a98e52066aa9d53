"""Reading a bank: sealed features as read-only arrays, mapped from their files without copying.

Imports neither pandas nor zarr: a study rerun from the shell opens its features in milliseconds.
"""

import builtins
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stores.backends.base import Backend
from stores.backends.location import Place, place
from stores.backends.registry import backend_of
from stores.bank import columns, document_schemas, documents, integrity, summary
from stores.bank.chunk_files import ChunkFiles
from stores.bank.feature_info import FeatureInfo
from stores.bank.keys import CONTENT_BYTES, STATUS_OK, Failure, FeatureKey
from stores.bank.layout import MANIFEST, RUN_DOCUMENT, SIDE, FeatureLayout, Grid, images_key
from stores.bank.links import refuse_links
from stores.bank.markers import Marker, decode_marker
from stores.bank.names import Roster, unfinished
from stores.bank.seal import misplaced, read_feature, read_seal, seal_path
from stores.bank.sealed_files import sealed_files
from stores.bank.summary import FeatureDescription
from stores.errors import BankError
from stores.json_types import JsonObject

if TYPE_CHECKING:
    from stores.bank.labelled import Labelled
    from stores.bank.table import BankTable
    from stores.manifest.manifest import Manifest

#: Rows copied at a time.
_BLOCK = 1 << 14


@dataclass(frozen=True)
class Bank:
    """A bank of embeddings, on any storage. `Bank.open` reads its run document and no other file.

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
        """Return a table of the features; reads their documents, no embedding, and never raises."""
        return self._table().text()

    def _repr_html_(self) -> str:
        return self._table().html()

    def _table(self) -> "BankTable":
        from stores.bank.table import BankTable

        return BankTable.of(self.path, self.rows, self._info)

    @cached_property
    def backend(self) -> Backend[Any]:
        """The storage that the bank lies in."""
        return backend_of(self.path)

    @property
    def grid(self) -> Grid:
        """Division of its rows into chunks."""
        return Grid(self.rows, self.chunk_rows)

    def holds(self, layout: FeatureLayout) -> bool:
        """Return whether a feature is of this bank's rows and images."""
        images = images_key(self.image_digest, layout.image_set)
        return layout.grid == self.grid and layout.key.images == images

    def features(self, name: str | None = None) -> "FeatureSet":
        """Open a finished feature.

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
        """Return the full names of all features that a word fits, finished or not, of a slug all.

        Raises:
            BankError: none such, or a beginning of several names.
        """
        roster = Roster.of(self.path)
        entries = roster.entries if name is None else roster.matching(name)
        if name is not None and not entries:
            raise roster.unknown(name)
        return [entry.feature for entry in entries]

    def list(self) -> "builtins.list[FeatureInfo]":
        """List all features, finished or not, but those that have lost their key, which `verify` reports.

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
        return summary.summarise(self.path, name, title)

    def title(self, name: str) -> str:
        """Return what people call a feature, by its full name (`stores.bank.names`)."""
        return Roster.of(self.path).title(name)

    def is_sealed(self, name: str) -> bool:
        """Return whether a feature, by its full name, is finished."""
        return self.backend.stat_if_there(seal_path(self.path, name)) is not None

    def provenance(self, name: str) -> JsonObject:
        """Read what is known about the run that made a feature. Raises BankError if lost or damaged."""
        path = self.path / SIDE / name / "provenance.json"
        body = documents.read_if_there(path)
        if body is None:
            raise BankError(
                f"{path} is missing",
                "It says how the feature was made",
                "run the same `embank embed` command again",
            )
        return body

    def describe(self, name: str, *, failures: bool = False) -> FeatureDescription:
        """Gather all that the bank knows about a feature, for `embank bank show`.

        Returns:
            `{name, title, key, counts, provenance, certificate}`, the latter two None if there are none; with
            `failures`, also `[{row, code, detail}]`.
        """
        return summary.describe(self.path, name, self.title(name), failures=failures)

    def manifest(self) -> "Manifest":
        """Read the manifest of when the bank was made (imports pyarrow). Raises BankError if damaged."""
        return columns.read_manifest(self.path, self.rows, self.files[MANIFEST])

    def manifest_file(self) -> Place:
        """Return the path of the manifest's file, checked against its digest. Raises BankError if damaged."""
        return columns.manifest_file(self.path, self.files[MANIFEST])

    def column(self, name: str) -> tuple[npt.NDArray[np.int32], "builtins.list[str]"]:
        """Read a categorical column of the manifest, without reading the manifest.

        Args:
            name: `label`, `split` or `group`.

        Returns:
            Codes int32 [rows] (-1 where missing), and the vocabulary they index, sorted by bytes.

        Raises:
            BankError: another name, or a damaged file.
        """
        return columns.read_column(self.path, self.rows, self.files, name)


class FeatureSet:
    """A sealed feature, for reading: row i belongs to image i of the manifest.

    Nothing damaged is used. On disk, opening compares every file's stamp with the cache and re-reads whatever
    has changed; what has to be fetched is checked as it arrives (`stores.bank.sealed_files`).

    Args:
        bank: where it lies.
        name: of the feature.
        title: the name shown to users.

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
        self._files = sealed_files(bank.backend, bank.path, name, self._seal_bytes, self._seal.files)
        self._files.ensure()
        key = f"{SIDE}/{name}/key.json"  # has been read already, so it is checked on any storage
        if integrity.promise_of(documents.encode(self._layout.key_document())) != self._seal.files[key]:
            raise misplaced(bank.path / key, name)

    def __len__(self) -> int:
        return self.bank.rows

    def __repr__(self) -> str:
        from stores.bank.table import plain

        info = self.info
        shape = f"{info.rows} x {info.dim} {info.dtype}"
        counts = f"{info.ok} ok, {info.failed} failed, {info.pending} pending"
        return f"FeatureSet({plain(self.title)} in {plain(str(self.bank.path))}: {shape}, {counts})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the location of the feature, not its numbers: another process maps the same files."""
        return _opened_again, (self.bank.path, self.name, self.seal_digest)

    @property
    def key(self) -> FeatureKey:
        """Key of the embeddings: everything that their values depend on."""
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
        return summary.sealed_info(self._layout, self._seal, self.title)

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
        """Paths and metadata of the feature."""
        return self._layout

    @cached_property
    def ok(self) -> npt.NDArray[np.bool_]:
        """bool [rows]: rows that have an embedding."""
        return np.equal(self.status, STATUS_OK)

    def _map(self, array: str, dtype: np.dtype[Any], tail: tuple[int, ...]) -> npt.NDArray[Any]:
        chunks, payload = self._chunks(array), self._layout.payload(array)
        return self._files.chunks(chunks, payload, dtype, tail)[: self.bank.rows]

    def _chunks(self, array: str) -> builtins.list[str]:
        return [self._layout.chunk_file(array, index) for index in range(self._layout.grid.chunks)]

    def chunk_files(self) -> ChunkFiles | None:
        """Return the files of the embeddings, for a reader that copies all of them and their checksums.

        Files that have changed since they were last verified are verified again.

        Returns:
            None where `array` is memory, which was verified as it arrived.

        Raises:
            BankError: a chunk is missing or damaged. MachineFault: the storage fails.
        """
        chunks, payload = self._chunks("embedding"), self._layout.payload("embedding")
        at_hand = self._files.local(chunks) if chunks else None
        if at_hand is None:
            return None
        size = payload // self.bank.chunk_rows * self.bank.rows
        return ChunkFiles(self.name, tuple(chunks), tuple(at_hand[0]), payload, size, at_hand[1])

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """Label codes int32 [rows], -1 where missing; `bank.column("label")` has the names."""
        return self.bank.column("label")[0]

    def labelled(self, label: str = "label", split: str | None = None) -> "Labelled":
        """Find the rows that have an embedding and a label, their codes, and the names of the classes.

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
        usable = self.labelled(label, split)
        x = np.empty((len(usable.rows), self.dim), np.float32)
        for start in range(0, len(x), _BLOCK):  # no second copy of them all in the stored dtype
            x[start : start + _BLOCK] = self.array[usable.rows[start : start + _BLOCK]]
        return x, usable.codes

    @property
    def image_ids(self) -> list[str]:
        """The manifest's image ids, in row order (imports pyarrow)."""
        return self.bank.manifest().image_ids

    def failures(self) -> list[Failure]:
        """List why rows have no embedding, in row order; `pending` of those that are not embedded yet."""
        markers = self.bank.backend.each(self._marker, range(self._layout.grid.chunks))
        return [Failure(**failure) for marker in markers for failure in marker["failures"]]

    def _marker(self, index: int) -> Marker:
        relative = self._layout.marker(index)
        path = self.bank.path / relative
        return decode_marker(self._files.read(relative), path)

    def take(self, rows: npt.ArrayLike) -> npt.NDArray[Any]:
        """Copy rows, in the order given: [len(rows), dim] in the stored dtype. Raises IndexError outside."""
        return np.asarray(self.array[np.asarray(rows, dtype=np.intp)])


def _opened_again(path: Place, name: str, seal_digest: str) -> FeatureSet:
    """Open a pickled feature. Raises BankError if it is no longer the one that was pickled."""
    features = Bank.open(path).features(name)
    if features.seal_digest != seal_digest:
        raise BankError(
            f"Feature {name} in {path} has changed since it was pickled",
            "A pickle names the very numbers that it was made of",
            "open the bank again, and pickle what it gives",
        )
    return features
