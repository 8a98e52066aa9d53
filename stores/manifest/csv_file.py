"""CSV files (UTF-8, commas) as tables of text, read strictly: nothing is guessed."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stores.errors import ManifestError
from stores.manifest.atomic_file import atomic_file
from stores.manifest.text import clean_names
from stores.manifest.text_table import TextTable, refuse_bad_names
from stores.manifest.uri_policy import shown

if TYPE_CHECKING:
    import pyarrow as pa

#: Rows that are held as Python's strings at a time.
_BLOCK = 65536
_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read(path: Path, magic: bytes) -> TextTable:
    """Read a CSV file.

    Args:
        path: the file.
        magic: its first bytes.

    Raises:
        ManifestError: the file is empty or malformed; with the line number where there is one.
    """
    if not magic:
        raise ManifestError(f"{path} is empty", "A manifest has a header and rows", "write it again")
    if magic[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise _utf16(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            return _read_rows(path, reader)
        except UnicodeDecodeError as error:
            raise _not_utf8(path) from error
        except csv.Error as error:
            raise ManifestError(
                f"{path}, line {reader.line_num}: {error}",
                "A CSV file has commas between fields, and every quote is closed",
                "mend that line, or write the table as Parquet",
            ) from error


def write(path: Path, table: "pa.Table") -> None:
    """Write a text table as UTF-8 CSV (RFC 4180), atomically.

    Raises:
        Refused: the folder is missing or not writable.
        MachineFault: the disk is full or fails.
    """
    with atomic_file(path) as raw:
        file = io.TextIOWrapper(raw, encoding="utf-8", newline="")
        # With "\n" as its line end the writer leaves a lone "\r" unquoted, and the reader ends the row there.
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(table.column_names)
        for batch in table.to_batches(max_chunksize=_BLOCK):
            writer.writerows(zip(*(column.to_pylist() for column in batch.columns), strict=True))
        file.flush()
        file.detach()


def _read_rows(path: Path, reader: Any) -> TextTable:
    import pyarrow as pa

    header: list[str] = next(reader, [])
    if not header:
        raise ManifestError(
            f"{path}: the first line is empty", "A manifest has a header and rows", "write it again"
        )
    header, notes = clean_names(header)
    _refuse_bad_header(path, header)
    chunks: list[list[Any]] = [[] for _ in header]  # of each column
    line_blocks: list[Any] = []
    for rows, lines in _blocks(reader):
        _refuse_ragged(path, rows, lines, len(header))
        for column, cells in zip(chunks, zip(*rows, strict=True), strict=True):
            column.append(pa.array(cells, pa.large_string()))
        line_blocks.append(np.array(lines, dtype=np.int64))
    if not line_blocks:
        raise ManifestError(f"{path} has a header and no rows", "A manifest lists images", "add rows")
    table = pa.Table.from_arrays([pa.chunked_array(column) for column in chunks], names=header)
    return TextTable(table, np.concatenate(line_blocks), None, notes)


def _blocks(reader: Any) -> Iterator[tuple[list[list[str]], list[int]]]:
    """Yield rows in blocks with their line numbers: Python's strings are large, Arrow's are not."""
    rows: list[list[str]] = []
    lines: list[int] = []
    line = reader.line_num + 1
    for row in reader:
        if row:  # an empty line is not a row
            rows.append(row)
            lines.append(line)
        line = reader.line_num + 1
        if len(rows) == _BLOCK:
            yield rows, lines
            rows, lines = [], []
    if rows:
        yield rows, lines


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
    refuse_bad_names(path, header)


def _refuse_ragged(path: Path, rows: list[list[str]], lines: list[int], width: int) -> None:
    if {len(row) for row in rows} == {width}:
        return
    i = next(i for i, row in enumerate(rows) if len(row) != width)
    raise ManifestError(
        f"{path}, line {lines[i]}: {len(rows[i])} fields, the header has {width}",
        "Every row has as many fields as the header",
        "mend that line; a field with a comma or a line break needs quotes",
    )


def _utf16(path: Path) -> ManifestError:
    return ManifestError(f"{path} looks like UTF-16", "A CSV manifest is UTF-8", "save it as UTF-8")


def _not_utf8(path: Path) -> ManifestError:
    """Return an error that names the line; the decoder only knows a position in its buffer."""
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
