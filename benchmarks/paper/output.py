"""Tables of a page as CSV files and on the terminal."""

import csv
import io
import math
from pathlib import Path

from engine.report.console import print_table, write
from engine.report.page.blocks import Column, DataTable, Value
from stores.outputs import new_file


def write_csv(table: DataTable, out: Path) -> None:
    """Write a table atomically as CSV with full precision; an interval's ends have columns of their own.

    Raises:
        Refused: the folder is not writable. MachineFault: the disk is full or fails.
    """
    spans = [any(row[place].low is not None for row in table.rows) for place in range(len(table.columns))]
    text = io.StringIO(newline="")
    lines = csv.writer(text, lineterminator="\n")
    heads: list[str] = []
    for column, has_interval in zip(table.columns, spans, strict=True):
        title = _title(column)
        heads += [title, f"{title} low", f"{title} high"] if has_interval else [title]
    lines.writerow(heads)
    for row in table.rows:
        cells: list[str] = []
        for value, column, has_interval in zip(row, table.columns, spans, strict=True):
            cells.append(_cell(value, column))
            cells += [_number(value.low), _number(value.high)] if has_interval else []
        lines.writerow(cells)
    with new_file(out) as file:
        file.write(text.getvalue().encode())


def _cell(value: Value, column: Column) -> str:
    if value.number is not None:
        return _number(value.number)
    return "" if column.numeric else value.text


def _title(column: Column) -> str:
    return f"{column.group} {column.title}".strip()


def _number(number: float | None) -> str:
    if number is None or math.isnan(number):
        return ""
    return str(int(number)) if float(number).is_integer() and abs(number) < 1e15 else repr(float(number))


def print_data_table(table: DataTable) -> None:
    """Print a table and its notes on stdout."""
    rows = [[_shown(value) for value in row] for row in table.rows]
    print_table([_title(column) for column in table.columns], rows, table.caption)
    for note in table.notes:
        write(note)


def _shown(value: Value) -> str:
    return f"{value.text} ({value.reason})" if value.reason and value.number is None else value.text
