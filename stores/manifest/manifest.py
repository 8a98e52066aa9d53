"""The manifest: the list of images, in the order of every embedding array."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stores.backends import files
from stores.backends.location import Place, place
from stores.errors import ManifestError, PathRefused
from stores.manifest import split_words
from stores.manifest.file_groups import groups_of
from stores.manifest.image_folder import SUFFIXES, Listing, Progress, hash_all, list_images
from stores.manifest.tables import TextTable, as_text, folder_of, read_table, write_csv, write_parquet
from stores.manifest.text import clean, clean_names
from stores.manifest.tidying import Tidied, tidy
from stores.manifest.uri_policy import CONTROL, as_re2, refuse_bad_uris, shown
from stores.outputs import refuse_csv_outside

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

#: Columns every manifest has, in this order; absent ones are empty. Others follow as they came.
COLUMNS = ("image_id", "uri", "label", "split", "group", "study", "view")
#: Columns in which manifests of earlier versions may hold `nan` for an empty cell.
_OPTIONAL = COLUMNS[2:]
_NAN = ("nan", "NaN", "NAN", "Nan")
_SHOWN = 3


@dataclass(frozen=True, eq=False, repr=False)
class Manifest:
    """A list of images: one row an image, all cells text, the empty text where there is no value.

    Made by `read`, `from_table`, `from_folder` or `from_frame`, which check it; not by hand.

    Attributes:
        table: Arrow table of `large_string` columns: `COLUMNS`, then `sha256` if digests are known (empty
            where one is not), then free extra columns.
        root: folder that uris are relative to.
        notes: what was converted or left out on the way in, one sentence each.
        before: the table before its text was cleaned, as earlier versions took it; None where that changed
            nothing (`as_made`).
    """

    table: "pa.Table"
    root: Path
    notes: tuple[str, ...] = ()
    before: "pa.Table | None" = None

    # Making one

    @classmethod
    def read(
        cls, path: Place | str, *, root: Path | str | None = None, allow_outside: bool = False
    ) -> "Manifest":
        """Read a CSV or Parquet manifest. `from_table` without renaming; see there.

        A Parquet file that `write` made is read as it is: its text was cleaned when the manifest was made,
        and a bank that an earlier version made keeps the cells that it was made with.
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

        Text is cleaned (`stores.manifest.tidying`): names of columns, and all cells but uris.

        Args:
            path: the file.
            id, uri, label, split, group, study, view: the table's columns that play these parts; by default
                those named `image_id`, `uri`, ... `image_id` defaults to the uri.
            root: folder of the images, which must be there; default is the one kept in the Parquet file, else
                the file's folder.
            allow_outside: accept absolute uris and `..`.

        Raises:
            ManifestError: no such root, malformed file, missing column, duplicate id, conflicting or infinite
                labels.
            PathRefused: uris against `stores.manifest.uri_policy`' policy.
        """
        path = place(path)
        if root is not None:
            _refuse_no_folder(Path(root))
        text = read_table(path)
        asked = {
            "image_id": id, "uri": uri, "label": label, "split": split, "group": group, "study": study,
            "view": view,
        }  # fmt: skip
        roles = {role: name for role, name in asked.items() if name}
        table = _with_roles(text.table, roles, str(path))
        home = Path(root) if root is not None else text.root or folder_of(path)
        written = text.written and not roles
        return _checked(TextTable(table, text.lines, home, text.notes, written), str(path), allow_outside)

    @classmethod
    def from_frame(
        cls, frame: "pd.DataFrame", root: Path | str, *, allow_outside: bool = False
    ) -> "Manifest":
        """Take a pandas DataFrame with a column `uri` and any others; its index is ignored.

        Raises:
            ManifestError, PathRefused: as `from_table`.
        """
        import pyarrow as pa

        names = list(frame.columns)
        if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise ManifestError("The frame's columns", "They have unique names of text", "rename them")
        try:
            arrow = pa.Table.from_pandas(frame, preserve_index=False)
        except (pa.ArrowException, UnicodeError) as error:
            raise ManifestError(
                f"The frame does not convert ({str(error).splitlines()[0]})",
                "A column holds values of one type, and text is valid Unicode",
                "convert its columns to text",
            ) from error
        names, said = clean_names(names)
        if len(set(names)) < len(names):
            raise ManifestError("The frame's columns", "They have unique names of text", "rename them")
        text, notes = as_text(arrow.rename_columns(names), "the frame")
        return _checked(TextTable(text, None, Path(root), said + notes), "the frame", allow_outside)

    @classmethod
    def from_columns(
        cls, columns: Mapping[str, Sequence[str]], root: Path | str, *, notes: Sequence[str] = ()
    ) -> "Manifest":
        """Take columns of text, `uri` among them, all of one length.

        Raises:
            ManifestError, PathRefused: as `from_table`.
        """
        table = TextTable(_text_table(columns), None, Path(root), tuple(notes))
        return _checked(table, str(root), allow_outside=False)

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
        """List a class-per-folder tree.

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
            progress: told (files hashed, files).

        Raises:
            ManifestError: not a folder, no image in it, or a first folder that is no split.
            Refused: a group pattern that is none, or gives no image a group.
            PathRefused: file names against `stores.manifest.uri_policy`' policy.
        """
        root = Path(root)
        listing = _listing(root, follow_links)
        columns: dict[str, Sequence[str]] = {"uri": listing.uris}
        columns |= _folder_parts(listing.uris, split_folders)
        notes = [f"{count} skipped: {reason}" for reason, count in listing.skipped.items()]
        notes += _gif_notes(listing.uris)
        notes += [] if split_folders else _looks_split(columns["label"])
        if group_pattern is not None:
            columns["group"], note = groups_of(listing.uris, group_pattern)
            notes.append(note)
        if hash_files:
            hashed = hash_all([root / uri for uri in listing.uris], workers=workers, progress=progress)
            columns["sha256"] = [digest or "" for digest in hashed]
            unread = hashed.count(None)
            notes += [f"{unread} files could not be hashed"] if unread else []
        return cls.from_columns(columns, root, notes=notes)

    def write(self, path: Place | str) -> None:
        """Write Parquet, or CSV if the name ends in `.csv`; atomically, the same manifest to the same bytes.

        Parquet keeps the root, relative to the file's folder where they share more than `/`.

        Raises:
            Refused: a CSV outside the root (it could not say where the images are), or an unwritable folder.
            MachineFault: the disk is full or fails.
        """
        path = place(path)
        local = files.local_path(path)
        if local is None or local.suffix.lower() != ".csv":
            write_parquet(path, self.table, self.root)
        else:
            refuse_csv_outside(local, self.root)
            write_csv(local, self.table)

    # Reading one

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        return f"Manifest({len(self)} rows, root={str(self.root)!r}, digest={self.digest[:12]})"

    @cached_property
    def frame(self) -> "pd.DataFrame":
        """All columns as pandas text, for reading; changes to it reach nothing."""
        return self.table.to_pandas()  # type: ignore[no-any-return]

    def column(self, name: str) -> list[str]:
        """One column's cells.

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
        """A column as numbers.

        Returns:
            (int32 [rows]: index into the vocabulary, -1 where the cell is empty; vocabulary sorted by bytes).
        """
        return _codes(self.table[name])

    def has(self, name: str) -> bool:
        """Whether a column exists and has any value."""
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
        """SHA-256 in hex over all columns and rows, in order. The root is no part of it."""
        return _table_digest(b"embank manifest 1", self.table, self.table.column_names)

    def as_made(self, digest: str) -> "Manifest":
        """Take the table as an earlier version took it, if a bank was made so: with this manifest digest."""
        if self.before is None or self.digest == digest:
            return self
        earlier = replace(self, table=self.before, before=None)
        return earlier if earlier.digest == digest else self

    @cached_property
    def image_digest(self) -> str:
        """SHA-256 in hex over what embeddings depend on: `image_id`, `uri` and, if known, `sha256`."""
        names = [name for name in ("image_id", "uri", "sha256") if name in self.table.column_names]
        return _table_digest(b"embank images 1", self.table, names)


# Digests


def _table_digest(purpose: bytes, table: "pa.Table", names: Sequence[str]) -> str:
    """Hash columns so that no two different tables give the same bytes: every text goes with its length.

    Bytes: purpose, number of columns, number of rows; per column the name with its length, the UTF-8 lengths
    of all cells, then the cells. Numbers are 8 bytes, little endian.
    """
    digest = hashlib.sha256(_sized(purpose) + _number(len(names)) + _number(table.num_rows))
    for name in names:
        lengths, text = _cells(table[name])
        digest.update(_sized(name.encode()))
        digest.update(lengths.tobytes())
        digest.update(text)
    return digest.hexdigest()


def _number(value: int) -> bytes:
    return value.to_bytes(8, "little")


def _sized(text: bytes) -> bytes:
    return _number(len(text)) + text


def _cells(column: "pa.ChunkedArray") -> "tuple[np.ndarray[Any, np.dtype[np.int64]], memoryview]":
    """(UTF-8 length of every cell, all cells after one another) of a `large_string` column without nulls."""
    import pyarrow as pa

    array = pa.concat_arrays(column.chunks)
    _, offset_buffer, data = array.buffers()
    offsets = np.frombuffer(offset_buffer, "<i8")[array.offset : array.offset + len(array) + 1]
    text = memoryview(data if data is not None else b"")[int(offsets[0]) : int(offsets[-1])]
    return np.diff(offsets).astype("<i8"), text


# Checking what comes in


def _checked(text: TextTable, source: str, allow_outside: bool) -> Manifest:
    """Apply every rule of a manifest to a text table."""
    if text.root is None:
        raise ValueError("a manifest has a root")
    tidied = Tidied(text.table) if text.written else tidy(text.table)
    table = _tidy(tidied.table, source)
    _refuse_bad_ids(table, text.where, source)
    refuse_bad_uris(table["uri"], text.where, allow_outside=allow_outside)
    _refuse_controls(table, text.where, source)
    _refuse_infinite(table["label"], text.where, source)
    _refuse_conflicts(table, text.where, source)
    if "sha256" in table.column_names:
        _refuse_bad_digests(table["sha256"], text.where, source)
    before = _tidy(text.table, source) if tidied.changed else None
    return Manifest(table, text.root, text.notes + tidied.notes + _line_break_notes(table), before)


def _refuse_no_folder(root: Path) -> None:
    if not root.is_dir():
        raise ManifestError(
            f"The root {root} {'is no folder' if root.exists() else 'does not exist'}",
            "The images lie below it",
            "correct or mount it; without --root it is the one a Parquet file keeps, else the file's folder",
        )


def _with_roles(table: "pa.Table", roles: dict[str, str], source: str) -> "pa.Table":
    """Rename columns to the parts they play; one column may play several."""
    # A name may be copied from a file whose header held what nobody sees.
    roles = {role: name if name in table.column_names else clean(name) for role, name in roles.items()}
    for role, name in roles.items():
        if name not in table.column_names:
            raise _missing_column(name, table, source, role)
        if role != name and role in table.column_names:
            raise ManifestError(
                f"{source}: column {shown(name)} is to be `{role}`, and there is a column `{role}` already",
                "A manifest has each column once",
                f"rename the column `{role}` in the file, or leave the option out",
            )
    columns = {role: table[name] for role, name in roles.items()}
    played = set(roles.values())
    columns |= {name: table[name] for name in table.column_names if name not in played and name not in roles}
    return _from_columns(columns)


def _missing_column(name: str, table: "pa.Table", source: str, role: str | None = None) -> ManifestError:
    """What to raise where a column is not there that plays a part, or the `uri` of a manifest."""
    found = ", ".join(map(shown, table.column_names[:20]))
    option = {"image_id": "--id"}.get(role or "", f"--{role}")
    return ManifestError(
        f"{source} has no column {shown(name)}; it has {found}",
        "A manifest has a column `uri`, the path of each image below the root"
        if role in (None, "uri")
        else f"The column that becomes `{role}` is one of the table",
        f"name the column that plays this part with {option} COLUMN"
        if role
        else "make a manifest of the table with `embank manifest table --uri COLUMN`",
    )


def _tidy(table: "pa.Table", source: str) -> "pa.Table":
    """The known columns in their order, absent ones empty, then digests, then the others."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not table.num_rows:
        raise ManifestError(f"{source} has no rows", "A manifest lists images", "add rows")
    if "uri" not in table.column_names:
        raise _missing_column("uri", table, source)
    nan = pa.array(_NAN, pa.large_string())
    empty = pa.chunked_array([pa.repeat(pa.scalar("", pa.large_string()), table.num_rows)])
    given = {name: table[name] for name in table.column_names}
    columns = {"image_id": given.pop("image_id", given["uri"]), "uri": given.pop("uri")}
    for name in _OPTIONAL:
        column = given.pop(name, empty)
        columns[name] = pc.if_else(pc.is_in(column, value_set=nan), "", column)
    digests = pc.utf8_lower(given.pop("sha256", empty))
    if pc.any(pc.not_equal(digests, "")).as_py():
        columns["sha256"] = digests
    return _from_columns(columns | given)


def _refuse_bad_ids(table: "pa.Table", where: Callable[[int], str], source: str) -> None:
    import pyarrow.compute as pc

    ids = table["image_id"]
    _refuse_rows(
        pc.match_substring_regex(ids, pattern="^$|" + as_re2(CONTROL)), ids, where, source,
        "image_id that is empty or not one line of text", "Every image has a name of one line",
    )  # fmt: skip
    if pc.count_distinct(ids).as_py() == len(ids):
        return
    codes, vocabulary = _codes(ids)
    twice = np.flatnonzero(np.bincount(codes) > 1)
    examples = "; ".join(
        f"{shown(vocabulary[code])} in {', '.join(map(where, np.flatnonzero(codes == code)[:3].tolist()))}"
        for code in twice[:_SHOWN].tolist()
    )
    raise ManifestError(
        f"{source}: {len(twice)} image_id stand more than once: {examples}",
        "An image_id names one row; text that looks the same is the same",
        "drop the repeated rows or number them",
    )


def _refuse_controls(table: "pa.Table", where: Callable[[int], str], source: str) -> None:
    import pyarrow.compute as pc

    for name in _OPTIONAL:
        _refuse_rows(
            pc.match_substring_regex(table[name], pattern=as_re2(CONTROL)), table[name], where, source,
            f"{name} with a line break or control character",
            "Labels, splits, groups, studies and views are one line of text; is a quote left open?",
        )  # fmt: skip


def _refuse_infinite(labels: "pa.ChunkedArray", where: Callable[[int], str], source: str) -> None:
    import pyarrow.compute as pc

    mask = pc.match_substring_regex(labels, pattern=r"^[+-]?inf(inity)?$", ignore_case=True)
    _refuse_rows(mask, labels, where, source, "infinite label", "A label is a class name or empty")


def _refuse_bad_digests(digests: "pa.ChunkedArray", where: Callable[[int], str], source: str) -> None:
    import pyarrow.compute as pc

    mask = pc.invert(pc.match_substring_regex(digests, pattern=r"^([0-9a-f]{64})?$"))
    _refuse_rows(mask, digests, where, source, "sha256 that is none", "A SHA-256 is 64 hex digits, or empty")


def _refuse_rows(
    mask: Any, column: "pa.ChunkedArray", where: Callable[[int], str], source: str, what: str, rule: str
) -> None:
    """Raise if any row of the Arrow mask is set, showing the first few."""
    rows = np.flatnonzero(mask.to_numpy(zero_copy_only=False))
    if not len(rows):
        return
    examples = "; ".join(f"{where(row)}: {shown(column[row].as_py())}" for row in rows[:_SHOWN].tolist())
    count = "a row" if len(rows) == 1 else f"{len(rows)} rows"
    raise ManifestError(f"{source}: {count} with {what}: {examples}", rule, "correct or remove these rows")


def _refuse_conflicts(table: "pa.Table", where: Callable[[int], str], source: str) -> None:
    """One file with two labels: at least one of them is wrong."""
    import pyarrow.compute as pc

    uris = plain_uris(table["uri"])
    if pc.count_distinct(uris).as_py() == len(uris):
        return
    files, names = _codes(uris)
    labels, vocabulary = _codes(table["label"])
    rows = np.flatnonzero(labels >= 0)
    low = np.full(len(names), len(vocabulary))
    high = np.full(len(names), -1)
    np.minimum.at(low, files[rows], labels[rows])
    np.maximum.at(high, files[rows], labels[rows])
    torn = np.flatnonzero(low < high)
    if not len(torn):
        return
    examples = "; ".join(
        f"{shown(names[f])} is {shown(vocabulary[low[f]])} and {shown(vocabulary[high[f]])} "
        f"({', '.join(map(where, rows[files[rows] == f][:3].tolist()))})"
        for f in torn[:_SHOWN].tolist()
    )
    raise ManifestError(
        f"{source}: {len(torn)} files have conflicting labels: {examples}",
        "An image has one label",
        "keep one label a file; findings that occur together belong into columns of their own",
    )


def plain_uris(uris: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """Uris without `.` and empty steps, so that two spellings of one file compare equal."""
    import pyarrow.compute as pc

    once = pc.replace_substring_regex(uris, pattern=r"(^|/)(\./+)+", replacement=r"\1")
    return pc.replace_substring_regex(once, pattern="/{2,}", replacement="/")


def _line_break_notes(table: "pa.Table") -> tuple[str, ...]:
    import pyarrow.compute as pc

    notes = []
    for name in table.column_names[len(COLUMNS) :]:
        count = pc.sum(pc.match_substring(table[name], "\n")).as_py()
        if count:
            notes.append(f"column {name}: {count} cells hold line breaks")
    return tuple(notes)


# Small parts


def _codes(column: "pa.ChunkedArray") -> "tuple[np.ndarray[Any, np.dtype[np.int32]], list[str]]":
    import pyarrow as pa

    encoded = pa.concat_arrays(column.chunks).dictionary_encode()
    words: list[str] = encoded.dictionary.to_pylist()
    vocabulary = sorted((word for word in words if word), key=str.encode)
    place = {word: i for i, word in enumerate(vocabulary)}
    remap = np.array([place.get(word, -1) for word in words], dtype=np.int32)
    return remap[encoded.indices.to_numpy()], vocabulary


def _text_table(columns: Mapping[str, Sequence[str]]) -> "pa.Table":
    import pyarrow as pa

    try:
        arrays = {
            name: pa.chunked_array([pa.array(cells, pa.large_string())]) for name, cells in columns.items()
        }
    except UnicodeEncodeError as error:
        raise PathRefused(
            f"File name {shown(str(error.object))} is not UTF-8", "Names are valid Unicode", "rename the file"
        ) from error
    return _from_columns(arrays)


def _from_columns(columns: "dict[str, pa.ChunkedArray]") -> "pa.Table":
    import pyarrow as pa

    return pa.Table.from_arrays(list(columns.values()), names=list(columns))


# Folders


def _listing(root: Path, follow_links: bool) -> Listing:
    try:
        listing = list_images(root, follow_links=follow_links)
    except OSError as error:
        raise ManifestError(
            f"{error.filename}: {error.strerror}", "The root is a folder that can be listed", "check the path"
        ) from error
    if not listing.uris:
        skipped = ", ".join(f"{count} {reason}" for reason, count in listing.skipped.items()) or "nothing"
        raise ManifestError(
            f"{root} holds no image (skipped: {skipped})",
            f"Images end in {' '.join(sorted(SUFFIXES))}",
            "choose another folder, or list the files in a CSV",
        )
    return listing


def _gif_notes(uris: list[str]) -> list[str]:
    count = sum(uri.lower().endswith(".gif") for uri in uris)
    return [f"{count} listed: GIF (of an animated one, the first frame is taken)"] if count else []


def _folder_parts(uris: Iterable[str], split_folders: bool) -> dict[str, Sequence[str]]:
    parts = [uri.split("/")[:-1] for uri in uris]
    if not split_folders:
        return {"label": [folders[0] if folders else "" for folders in parts]}
    for folders, uri in zip(parts, uris, strict=True):
        if not folders or split_words.usual(folders[0]) is None:
            raise ManifestError(
                f"{shown(uri)} lies in no split folder",
                f"With split folders the first folder is one of {', '.join(split_words.WORDS)}",
                "move the file, or leave the option out",
            )
    return {
        "split": [folders[0] for folders in parts],
        "label": [folders[1] if len(folders) > 1 else "" for folders in parts],
    }


def _looks_split(labels: Iterable[str]) -> list[str]:
    names = sorted(set(labels))
    if len(names) > 1 and all(split_words.usual(name) for name in names):
        return [f"the folders {', '.join(names)} look like splits and were read as labels (--split-folders)"]
    return []
