"""CSV and Parquet files as tables of text, read strictly: nothing is guessed or silently converted."""

import contextlib
import csv
import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from stores.backends import files
from stores.backends.location import Place
from stores.errors import MachineFault, ManifestError, Refused
from stores.manifest.text import clean_names
from stores.manifest.uri_policy import shown

if TYPE_CHECKING:
    import pyarrow as pa

_ROOT_KEY = b"embank.root"
#: Arrow adds it to what it writes of a table that it read here, root and all; `write_parquet` does not.
_FOREIGN_KEY = b"ARROW:schema"
_BLOCK = 65536
_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True)
class TextTable:
    """A table whose cells are all text.

    Attributes:
        table: Arrow table of `large_string` columns without nulls, in the file's order.
        lines: line of each row in a CSV file (int64 [rows]), None for Parquet.
        root: root kept in the file, absolute, None where it keeps none.
        notes: what was converted, one sentence each.
        written: whether `write_parquet` wrote the file: what it holds went through the door before.
    """

    table: "pa.Table"
    lines: "np.ndarray[Any, np.dtype[np.int64]] | None" = None
    root: Path | None = None
    notes: tuple[str, ...] = ()
    written: bool = False

    def where(self, row: int) -> str:
        """Where a row stands in the file, for messages."""
        return f"row {row}" if self.lines is None else f"line {self.lines[row]}"


def read_table(path: Place) -> TextTable:
    """Read a Parquet or CSV file; which of the two is told by its first bytes.

    Raises:
        ManifestError: the file is absent, empty or malformed; with the line number where there is one.
    """
    local = files.local_path(path)
    if local is None:
        return _read_parquet(path)
    refuse_special(local)
    try:
        with local.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ManifestError(
            f"{path}: {error.strerror}",
            "A manifest is a readable CSV or Parquet file",
            "check the path; for a folder of images run `embank manifest folder`",
        ) from error
    if magic == b"PAR1":
        return _read_parquet(path)
    if local.suffix.lower() in (".parquet", ".pq"):
        raise ManifestError(
            f"{path} does not start as a Parquet file", "Its first bytes are PAR1", "write it again"
        )
    return _read_csv(local, magic)


def refuse_special(path: Path) -> None:
    """Refuse a table that is a FIFO, socket or device: opening or reading one can wait for ever.

    Raises:
        ManifestError: it is one. Whatever cannot be looked at is for the opening to name.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ManifestError(
            f"{path} is no regular file",
            "A table is a file, not a FIFO, a socket or a device",
            "write it to a file first",
        )


# CSV


def _read_csv(path: Path, magic: bytes) -> TextTable:
    if not magic:
        raise ManifestError(f"{path} is empty", "A manifest has a header and rows", "write it again")
    if magic[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise _utf16(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            return _csv_rows(path, reader)
        except UnicodeDecodeError as error:
            raise _not_utf8(path) from error
        except csv.Error as error:
            raise ManifestError(
                f"{path}, line {reader.line_num}: {error}",
                "A CSV file has commas between fields, and every quote is closed",
                "mend that line, or write the table as Parquet",
            ) from error


def _csv_rows(path: Path, reader: Any) -> TextTable:
    import pyarrow as pa

    header: list[str] = next(reader, [])
    if not header:
        raise ManifestError(
            f"{path}: the first line is empty", "A manifest has a header and rows", "write it again"
        )
    header, notes = clean_names(header)
    _refuse_bad_header(path, header)
    parts: list[list[Any]] = [[] for _ in header]
    lines: list[Any] = []
    for rows, at in _blocks(reader):
        _refuse_ragged(path, rows, at, len(header))
        for part, cells in zip(parts, zip(*rows, strict=True), strict=True):
            part.append(pa.array(cells, pa.large_string()))
        lines.append(np.array(at, dtype=np.int64))
    if not lines:
        raise ManifestError(f"{path} has a header and no rows", "A manifest lists images", "add rows")
    columns = [pa.chunked_array(part) for part in parts]
    return TextTable(pa.Table.from_arrays(columns, names=header), np.concatenate(lines), None, notes)


def _blocks(reader: Any) -> Iterator[tuple[list[list[str]], list[int]]]:
    """Rows in blocks with their line numbers: Python's strings are large, Arrow's are not."""
    rows: list[list[str]] = []
    at: list[int] = []
    line = reader.line_num + 1
    for row in reader:
        if row:  # an empty line is no row
            rows.append(row)
            at.append(line)
        line = reader.line_num + 1
        if len(rows) == _BLOCK:
            yield rows, at
            rows, at = [], []
    if rows:
        yield rows, at


def _refuse_bad_header(path: Path, header: list[str]) -> None:
    text = ",".join(header)
    if "\x00" in text:
        raise _utf16(path)
    if len(header) == 1:
        for sign, name in _DELIMITERS.items():
            if sign in text:
                raise ManifestError(
                    f"{path}: the header {shown(text)} looks separated by {name}",
                    "Fields are separated by commas",
                    "write it again with commas, or as Parquet",
                )
    _refuse_bad_names(path, header)


def _refuse_bad_names(path: Place, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ManifestError(
            f"{path}: column {', '.join(map(shown, twice))} stands more than once in the header",
            "Column names are unique",
            "rename or drop one",
        )
    odd = [name for name in names if not name.strip() or not name.isprintable()]
    if odd:
        raise ManifestError(
            f"{path}: column {names.index(odd[0]) + 1} is named {shown(odd[0])}",
            "Every column has a printable name",
            "name it; pandas writes an unnamed index column unless told index=False",
        )


def _refuse_ragged(path: Path, rows: list[list[str]], at: list[int], width: int) -> None:
    if {len(row) for row in rows} == {width}:
        return
    i = next(i for i, row in enumerate(rows) if len(row) != width)
    raise ManifestError(
        f"{path}, line {at[i]}: {len(rows[i])} fields, the header has {width}",
        "Every row has as many fields as the header",
        "mend that line; a field with a comma or a line break needs quotes",
    )


def _utf16(path: Path) -> ManifestError:
    return ManifestError(f"{path} looks like UTF-16", "A CSV manifest is UTF-8", "save it as UTF-8")


def _not_utf8(path: Path) -> ManifestError:
    """Name the line; the decoder only knows a position in its buffer."""
    line = 0
    with path.open("rb") as file:
        for line, raw in enumerate(file, 1):  # noqa: B007
            try:
                raw.decode()
            except UnicodeDecodeError:
                break
    return ManifestError(
        f"{path}, line {line}: bytes that are not UTF-8", "A CSV manifest is UTF-8", "save it as UTF-8"
    )


# Parquet


def _read_parquet(path: Place) -> TextTable:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # `ParquetFile` rather than `read_table`: no partition columns invented from folder names.
        local = files.local_path(path)
        source = pa.BufferReader(files.read(path)) if local is None else local
        with pq.ParquetFile(source) as file:
            if local is not None and file.metadata.num_rows > _most_rows(local):
                raise ManifestError(
                    f"{path} states {file.metadata.num_rows} rows in {local.stat().st_size} bytes",
                    "Every image has an id of its own, which takes room",
                    "write it again",
                )
            kept = file.metadata.metadata or {}
            table, stored = file.read(), kept.get(_ROOT_KEY)
        table.validate(full=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise ManifestError(
            f"{path} cannot be read as Parquet ({first})", "A manifest is a sound file", "write it again"
        ) from error
    if not table.num_rows or not table.num_columns:
        raise ManifestError(f"{path} has no rows", "A manifest lists images", "add rows")
    written = stored is not None and _FOREIGN_KEY not in kept
    names, said = (table.column_names, ()) if written else clean_names(table.column_names)
    _refuse_bad_names(path, names)
    text, notes = as_text(table.rename_columns(names), str(path))
    root = None if stored is None else Path(os.path.normpath(folder_of(path) / os.fsdecode(stored)))
    return TextTable(text, None, root, said + notes, written)


def _most_rows(path: Path) -> int:
    """Rows that a file of this size can hold, ids being unlike: far more than any has."""
    return 1_000_000 + 100 * path.stat().st_size


def folder_of(path: Place) -> Path:
    """The folder of a file, absolute; of an object, a path that no file has and that says so."""
    local = files.local_path(path)
    return Path("/", str(path.parent)) if local is None else local.absolute().parent


def as_text(table: "pa.Table", name: str) -> tuple["pa.Table", tuple[str, ...]]:
    """Turn typed columns into text by explicit rules.

    Text stays; null and NaN become the empty text; integers and booleans become their decimal text or
    `true`/`false`; whole floats lose their `.0` (integers with gaps arrive as floats), other floats become
    the shortest text that reads back; dates become ISO text. Anything nested or binary is refused, and so
    are floats as `image_id` or `uri`.

    Returns:
        (table of `large_string` columns without nulls and without metadata, notes on what was converted).

    Raises:
        ManifestError: a column that has no text form.
    """
    import pyarrow as pa

    columns, notes = [], []
    for field, column in zip(table.schema, table.columns, strict=True):
        text, note = _column_text(field.name, column, name)
        columns.append(text)
        notes += [note] if note else []
    return pa.Table.from_arrays(columns, names=table.column_names), tuple(notes)


def _column_text(name: str, column: Any, source: str) -> tuple[Any, str]:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind, note = column.type, ""
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_floating(kind):
        column, note = _float_text(name, column, source), f"column {name}: {kind} read as text"
    elif pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_temporal(kind):
        note = f"column {name}: {kind} read as text"
    elif not (_is_text(kind) or pa.types.is_null(kind)):
        raise ManifestError(
            f"{source}: column {shown(name)} has type {kind}",
            "Columns hold text, whole numbers, floats, booleans or dates",
            "convert it to text or drop it",
        )
    return pc.fill_null(column.cast(pa.large_string()), ""), note


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def _float_text(name: str, column: Any, source: str) -> Any:
    import pyarrow as pa

    if name in ("image_id", "uri"):
        raise ManifestError(
            f"{source}: column {name} has type {column.type}",
            "A float is no name: `00012` has become 12.0",
            "write that column as text",
        )
    values = column.cast(pa.float64()).to_pylist()
    if column.type != pa.float64():  # a float16 or float32 reads back from a shorter text than its float64
        narrow = np.dtype(column.type.to_pandas_dtype()).type
        values = [None if v is None else narrow(v) for v in values]
    return pa.chunked_array([pa.array([_number_text(v) for v in values], pa.large_string())])


def _number_text(value: Any) -> str | None:
    if value is None or value != value:
        return None
    if float(value).is_integer() and abs(float(value)) < 2**53:
        return str(int(value))
    return str(value)


# Writing


def write_parquet(path: Place, table: "pa.Table", root: Path) -> None:
    """Write a text table with its root, atomically; the same table and root give the same bytes.

    The root is kept relative to the file's folder, unless they share nothing but `/`, as with an object.
    """
    home = folder_of(path)
    absolute = Path(os.path.normpath(root.absolute()))
    apart = os.path.commonpath([absolute, os.path.normpath(home)]) == os.sep
    kept = str(absolute) if apart else os.path.relpath(absolute, home)
    local = files.local_path(path)
    if local is None:
        buffer = io.BytesIO()
        _write_parquet(buffer, table, kept)
        files.replace(path, buffer.getvalue(), path)
    else:
        with atomic_file(local) as file:
            _write_parquet(file, table, kept)


def _write_parquet(file: IO[bytes], table: "pa.Table", root: str) -> None:
    import pyarrow.parquet as pq

    tidy = table.combine_chunks().replace_schema_metadata(None)
    # `store_schema` would add Arrow's own serialisation, whose bytes change with its version.
    options = {"compression": "zstd", "version": "2.6", "store_schema": False}
    with pq.ParquetWriter(file, tidy.schema, **options) as writer:
        writer.write_table(tidy, row_group_size=1 << 20)
        writer.add_key_value_metadata({_ROOT_KEY: os.fsencode(root)})


def write_csv(path: Path, table: "pa.Table") -> None:
    """Write a text table as UTF-8 CSV (RFC 4180), atomically."""
    with atomic_file(path) as raw:
        file = io.TextIOWrapper(raw, encoding="utf-8", newline="")
        # With "\n" as its line end the writer leaves a lone "\r" unquoted, and the reader ends the row there.
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(table.column_names)
        for batch in table.to_batches(max_chunksize=_BLOCK):
            writer.writerows(zip(*(column.to_pylist() for column in batch.columns), strict=True))
        file.flush()
        file.detach()


_CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name complete and on the disk, or not at all.

    Raises:
        Refused: the folder is missing or not writable.
        MachineFault: the disk is full or fails.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with os.fdopen(os.open(temporary, _CREATE, 0o666), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 - a point at which the tests inject faults
        _sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_error(path: Path, error: OSError) -> Refused | MachineFault:
    """The user's error for a file that could not be written."""
    refused = FileNotFoundError | PermissionError | NotADirectoryError | IsADirectoryError | FileExistsError
    if isinstance(error, refused):
        return Refused(
            f"{path}: {error.strerror}",
            "The folder of the file exists and can be written to",
            "choose another",
        )
    return MachineFault(
        f"{path}: {error.strerror}", "The file must be written whole", "make room and run the command again"
    )
