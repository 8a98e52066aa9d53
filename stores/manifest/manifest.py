"""The manifest: the list of images, in the order of every embedding array."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stores.backends import files
from stores.backends.location import Place, place
from stores.errors import ManifestError
from stores.manifest import csv_file, parquet_file
from stores.manifest.class_folders import read_class_folders
from stores.manifest.columns import COLUMNS, arrange, assign_roles, encode_column, text_table
from stores.manifest.digests import table_digest
from stores.manifest.file_groups import groups_of
from stores.manifest.image_folder import Progress, hash_all
from stores.manifest.rules import refuse_bad_table
from stores.manifest.tables import read_table
from stores.manifest.text_table import TextTable, folder_of
from stores.manifest.tidying import Tidied, tidy
from stores.manifest.typed_columns import frame_as_text
from stores.manifest.uri_policy import shown
from stores.outputs import refuse_csv_outside

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True, eq=False, repr=False)
class Manifest:
    """A list of images: one row an image, every cell text, empty where there is no value.

    Make it with `read`, `from_table`, `from_folder`, `from_frame` or `from_columns`, which check it.

    Attributes:
        table: Arrow table of `large_string` columns: `COLUMNS`, then `sha256` if any digest is known (empty
            where one is not), then free extra columns.
        root: folder that uris are relative to.
        notes: what was converted or left out while reading, one sentence each.
        before: the table before its text was cleaned, as earlier versions read it; None if cleaning changed
            nothing (see `as_made`).
    """

    table: "pa.Table"
    root: Path
    notes: tuple[str, ...] = ()
    before: "pa.Table | None" = None

    # Construction

    @classmethod
    def read(
        cls, path: Place | str, *, root: Path | str | None = None, allow_outside: bool = False
    ) -> "Manifest":
        """Read a CSV or Parquet manifest, whose columns already have a manifest's names; see `from_table`.

        A Parquet file made by `write` is read as it is: its text was cleaned when the manifest was made, and
        a bank made by an earlier version keeps the cells that it was made with.
        """
        return cls.from_table(path, root=root, allow_outside=allow_outside)

    @classmethod
    def from_table(
        cls,
        path: Place | str,
        *,
        id: str | None = None,
        uri: str | None = None,
        label: str | None = None,
        split: str | None = None,
        group: str | None = None,
        study: str | None = None,
        view: str | None = None,
        root: Path | str | None = None,
        allow_outside: bool = False,
    ) -> "Manifest":
        """Read any CSV (UTF-8, commas) or Parquet table as a manifest.

        Column names, and all cells but uris, are cleaned (`stores.manifest.tidying`).

        Args:
            path: the file.
            id, uri, label, split, group, study, view: names of the table's columns that play these roles; by
                default `image_id`, `uri`, and so on. Without a column for it, `image_id` is the uri.
            root: existing folder of the images; default is the one kept in the Parquet file, else the file's
                folder.
            allow_outside: accept absolute uris and `..`.

        Raises:
            ManifestError: no such root, malformed file, missing column, duplicate id, conflicting or infinite
                labels.
            PathRefused: uris against `stores.manifest.uri_policy`.
        """
        path = place(path)
        if root is not None:
            _refuse_no_folder(Path(root))
        text = read_table(path)
        column_of = {
            "image_id": id, "uri": uri, "label": label, "split": split, "group": group, "study": study,
            "view": view,
        }  # fmt: skip
        roles = {role: name for role, name in column_of.items() if name}
        as_manifest = replace(
            text,
            table=assign_roles(text.table, roles, str(path)),
            root=Path(root) if root is not None else text.root or folder_of(path),
            written_by_embank=text.written_by_embank and not roles,
        )
        return _from_text(as_manifest, str(path), allow_outside)

    @classmethod
    def from_frame(
        cls, frame: "pd.DataFrame", root: Path | str, *, allow_outside: bool = False
    ) -> "Manifest":
        """Make a manifest of a pandas DataFrame with a column `uri` and any others; its index is ignored.

        Raises:
            ManifestError, PathRefused: as `from_table`.
        """
        table, notes = frame_as_text(frame)
        return _from_text(TextTable(table, None, Path(root), notes), "the frame", allow_outside)

    @classmethod
    def from_columns(
        cls, columns: Mapping[str, Sequence[str]], root: Path | str, *, notes: Sequence[str] = ()
    ) -> "Manifest":
        """Make a manifest of columns of text, `uri` among them, all of one length.

        Raises:
            ManifestError, PathRefused: as `from_table`.
        """
        text = TextTable(text_table(columns), None, Path(root), tuple(notes))
        return _from_text(text, str(root), allow_outside=False)

    @classmethod
    def from_folder(
        cls,
        root: Path | str,
        *,
        split_folders: bool = False,
        hash_files: bool = False,
        follow_links: bool = False,
        group_pattern: str | None = None,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> "Manifest":
        """Make a manifest of a tree with one folder a class.

        The uri is the path below `root`, rows are sorted by its bytes; the label is the first folder's name,
        empty for images directly in `root`; the id is the uri (`stores.manifest.ids`). `notes` counts what
        was skipped.

        Args:
            split_folders: the first folder is the split (train, val or test, or their usual other names),
                the second the label.
            hash_files: add the column `sha256`; a file that cannot be read gets an empty one.
            follow_links: enter links to folders.
            group_pattern: regular expression that takes the group (patient) out of the uri
                (`stores.manifest.file_groups`).
            workers: threads that hash files.
            progress: called with (files hashed, files).

        Raises:
            ManifestError: not a folder, no image in it, or a first folder whose name is no split.
            Refused: a group pattern that is not valid, or gives no image a group.
            PathRefused: file names against `stores.manifest.uri_policy`.
        """
        root = Path(root)
        columns, notes = read_class_folders(root, split_folders=split_folders, follow_links=follow_links)
        uris = columns["uri"]
        if group_pattern is not None:
            columns["group"], note = groups_of(uris, group_pattern)
            notes.append(note)
        if hash_files:
            digests = hash_all([root / uri for uri in uris], workers=workers, progress=progress)
            columns["sha256"] = [digest or "" for digest in digests]
            unread = digests.count(None)
            notes += [f"{unread} files could not be hashed"] if unread else []
        return cls.from_columns(columns, root, notes=notes)

    def write(self, path: Place | str) -> None:
        """Write Parquet, or CSV if the name ends in `.csv`, atomically; equal manifests give equal bytes.

        Parquet keeps the root, relative to the file's folder where they share more than `/`.

        Raises:
            Refused: a CSV outside the root (it could not say where the images are), or an unwritable folder.
            MachineFault: the disk is full or fails.
        """
        path = place(path)
        local = files.local_path(path)
        if local is None or local.suffix.lower() != ".csv":
            parquet_file.write(path, self.table, self.root)
        else:
            refuse_csv_outside(local, self.root)
            csv_file.write(local, self.table)

    # Contents

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        return f"Manifest({len(self)} rows, root={str(self.root)!r}, digest={self.digest[:12]})"

    @cached_property
    def frame(self) -> "pd.DataFrame":
        """All columns as pandas text; a copy, so that changing it does not change the manifest."""
        return self.table.to_pandas()  # type: ignore[no-any-return]

    def column(self, name: str) -> list[str]:
        """Return the cells of one column.

        Raises:
            ManifestError: no such column.
        """
        if name not in self.table.column_names:
            raise ManifestError(
                f"The manifest has no column {shown(name)}",
                f"It has {', '.join(self.table.column_names)}",
                "choose one of them",
            )
        return self.table[name].to_pylist()  # type: ignore[no-any-return]

    @cached_property
    def image_ids(self) -> list[str]:
        """Unique names, in row order."""
        return self.column("image_id")

    @cached_property
    def uris(self) -> list[str]:
        """Paths relative to `root`, in row order."""
        return self.column("uri")

    @cached_property
    def sha256s(self) -> list[str] | None:
        """Digests of the files in hex, empty where unknown; None if the manifest has none."""
        return self.column("sha256") if "sha256" in self.table.column_names else None

    def codes(self, name: str) -> "tuple[np.ndarray[Any, np.dtype[np.int32]], list[str]]":
        """Return a column as codes.

        Returns:
            (int32 [rows]: index into the vocabulary, -1 where the cell is empty; vocabulary sorted by bytes).
        """
        return encode_column(self.table[name])

    def has(self, name: str) -> bool:
        """Return whether a column exists and has any value."""
        return name in self.table.column_names and bool(self.codes(name)[1])

    @property
    def classes(self) -> dict[str, int]:
        """Label -> number of rows; rows without label are not counted."""
        codes, vocabulary = self.codes("label")
        return dict(zip(vocabulary, np.bincount(codes[codes >= 0]).tolist(), strict=True))

    @property
    def unlabelled(self) -> int:
        """Number of rows without label."""
        return int((self.codes("label")[0] < 0).sum())

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of all columns and rows, in order; the root is not part of it."""
        return table_digest(b"embank manifest 1", self.table, self.table.column_names)

    def as_made(self, digest: str) -> "Manifest":
        """Return the manifest as an earlier version read it, if that has the given digest; else this one.

        Args:
            digest: the manifest digest of a bank that an earlier version may have made.
        """
        if self.before is None or self.digest == digest:
            return self
        earlier = replace(self, table=self.before, before=None)
        return earlier if earlier.digest == digest else self

    @cached_property
    def image_digest(self) -> str:
        """SHA-256, in hex, of what embeddings depend on: `image_id`, `uri` and, if known, `sha256`."""
        names = [name for name in ("image_id", "uri", "sha256") if name in self.table.column_names]
        return table_digest(b"embank images 1", self.table, names)


def _from_text(text: TextTable, source: str, allow_outside: bool) -> Manifest:
    """Clean a text table, apply every rule, and make the manifest of it."""
    if text.root is None:
        raise ValueError("a manifest has a root")
    tidied = Tidied(text.table) if text.written_by_embank else tidy(text.table)
    table = arrange(tidied.table, source)
    refuse_bad_table(table, text.where, source, allow_outside=allow_outside)
    before = arrange(text.table, source) if tidied.changed else None
    return Manifest(table, text.root, text.notes + tidied.notes + _line_break_notes(table), before)


def _refuse_no_folder(root: Path) -> None:
    if not root.is_dir():
        raise ManifestError(
            f"The root {root} {'is no folder' if root.exists() else 'does not exist'}",
            "The images lie below it",
            "correct or mount it; without --root it is the one a Parquet file keeps, else the file's folder",
        )


def _line_break_notes(table: "pa.Table") -> tuple[str, ...]:
    import pyarrow.compute as pc

    notes = []
    for name in table.column_names[len(COLUMNS) :]:
        count = pc.sum(pc.match_substring(table[name], "\n")).as_py()
        if count:
            notes.append(f"column {name}: {count} cells hold line breaks")
    return tuple(notes)
