"""The tables beside a record: predictions of single images, checked against the record's digests."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stores.backends import files
from stores.backends.location import Place, place
from stores.bank.record_index import RecordEntry, record_of
from stores.bank.records import FOLDER, RunRecord, attached_name
from stores.errors import BankError, Refused
from stores.json_types import JsonObject
from stores.table_files import write_table

if TYPE_CHECKING:
    import pyarrow as pa

#: Formats of an export.
ENDINGS = (".csv", ".parquet", ".json")


@dataclass(frozen=True)
class PredictionTable:
    """A table that a record promises.

    Attributes:
        name: its name; "" where the record has one table only.
        path: of its file, relative to the bank.
        rows: that it has.
        size: of the file, bytes; sha256: of its bytes.
    """

    name: str
    path: str
    rows: int
    size: int
    sha256: str

    def problem(self, root: Place) -> str:
        """Say what is wrong with the file, which is read in whole; "" if nothing is."""
        state = files.digest(root / self.path)
        if state is None:
            return "missing"
        return "" if state == (self.size, self.sha256) else "content differs from its SHA-256"


def tables_of(record: RunRecord, file: str) -> list[PredictionTable]:
    """Return the tables that a record promises.

    Args:
        file: name of the record's file.
    """
    return [
        PredictionTable(name, f"{FOLDER}/{attached_name(file, name)}", **promise)
        for name, promise in record.predictions.items()
    ]


def broken_tables(root: Place, record: RunRecord, file: str) -> Iterator[tuple[PredictionTable, str]]:
    """Go through the damaged tables of a record, with what is wrong with each."""
    for table in tables_of(record, file):
        if problem := table.problem(root):
            yield table, problem


def read_predictions(bank: Place | str, word: str, table: str | None = None) -> "pa.Table":
    """Read the predictions that belong to a record (imports pyarrow).

    Args:
        word: the record, as `stores.bank.record_index.find` takes it.
        table: which of its tables, where it has several, e.g. `images`.

    Returns:
        A row for each image (of `episodes`: each episode); texts, float64, float32, int64, int32 or bool.

    Raises:
        Refused: no such record or table, or a record without predictions. BankError: a damaged record, or
            the file of the table is missing or not what the record promises.
    """
    return read_predictions_of(bank, record_of(bank, word), table)


def read_predictions_of(bank: Place | str, entry: RecordEntry, table: str | None = None) -> "pa.Table":
    """Read the predictions of a record that is at hand, as `read_predictions`.

    Args:
        entry: of a record that can be read.
    """
    import io

    from pyarrow.parquet import ParquetFile

    root = place(bank)
    promised = _choose(entry, table)
    if problem := promised.problem(root):
        raise BankError(
            f"{root / promised.path} is {problem if problem == 'missing' else 'damaged'}",
            "The predictions beside a record are those that it was made with",
            f"run the same evaluation again; `embank bank repair {root}` sets the damaged record aside",
        )
    # Several times as fast as `read_table`, where tables are small: a page reads hundreds.
    return ParquetFile(io.BytesIO(files.read(root / promised.path))).read(use_threads=promised.rows > 100_000)


def _choose(entry: RecordEntry, table: str | None) -> PredictionTable:
    assert entry.record is not None
    tables = {promised.name: promised for promised in tables_of(entry.record, entry.name)}
    if not tables:
        raise Refused(
            f"record {entry.id} ({entry.record.kind}) has no predictions",
            "Records of evaluations have them, from this version of embank on",
            "run the evaluation again",
        )
    if table is None and len(tables) == 1:
        return next(iter(tables.values()))
    name = "images" if table is None else table
    if name not in tables:
        raise Refused(
            f"table {name!r}", f"Record {entry.id} has {', '.join(map(repr, tables))}", "name one of these"
        )
    return tables[name]


def export_predictions(bank: Place | str, word: str, out: Path, table: str | None = None) -> JsonObject:
    """Write the predictions of a record as a table, whole or not at all.

    Args:
        word, table: as for `read_predictions`; of several tables `images` is written if none is named.
        out: ends in one of `ENDINGS`; missing folders are made.

    Returns:
        `{record, kind, table, rows, columns}`.

    Raises:
        Refused, BankError: as `read_predictions`. MachineFault: the disk is full or fails.
    """
    entry = record_of(bank, word)
    promised = _choose(entry, table)
    arrow = read_predictions(bank, word, table)
    types = {field.name: str(field.type) for field in arrow.schema}
    write_table(arrow.to_pydict(), out, digits=None, types=types)
    assert entry.record is not None
    names: JsonObject = {"record": entry.id, "kind": entry.record.kind, "table": promised.name}
    return {**names, "rows": arrow.num_rows, "columns": list(arrow.column_names)}
