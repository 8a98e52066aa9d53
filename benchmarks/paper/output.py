"""Tables of a page as files (CSV, LaTeX, Markdown, HTML) and on the terminal."""

from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import wrap

from engine.report.console import print_table, write
from engine.report.page.blocks import Column, DataTable, Page, Section, Value
from engine.report.page.render import render_page
from engine.report.page.tables import csv_of, tex_of
from engine.report.tables import USUAL
from stores.outputs import new_file


def write_table(table: DataTable, out: Path) -> None:
    """Write a table atomically, by the ending one of `FORMATS`.

    CSV has full precision, and the ends of intervals in columns of their own.

    Raises:
        Refused: the folder is not writable. MachineFault: the disk is full or fails.
    """
    data = FORMATS[out.suffix.lower()](table)
    with new_file(out) as file:
        file.write(data)


def markdown_of(table: DataTable) -> str:
    """Return a table as Markdown, with its caption and notes; strong cells are bold."""
    rows = [[_title(column) for column in table.columns], [_rule(column) for column in table.columns]]
    rows += [[_markdown(value) for value in row] for row in table.rows]
    lines = [table.caption, "", *(f"| {' | '.join(row)} |" for row in rows), ""]
    return "\n".join([*lines, *(f"- {note}" for note in table.notes), ""]).rstrip("\n") + "\n"


def _rule(column: Column) -> str:
    return "---:" if column.numeric else "---"


def _markdown(value: Value) -> str:
    text = value.text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
    return f"**{text}**" if value.strong and text else text


def _html(table: DataTable) -> bytes:
    title = table.caption.partition(":")[0]
    return render_page(Page(title, sections=(Section("table", title, (table,)),)))


#: Ending -> the bytes of a table's file.
FORMATS: Mapping[str, Callable[[DataTable], bytes]] = {
    ".csv": lambda table: csv_of(table).encode(),
    ".tex": lambda table: tex_of(table).encode(),
    ".md": lambda table: markdown_of(table).encode(),
    ".html": _html,
}


def _title(column: Column) -> str:
    return f"{column.group} {column.title}".strip()


def print_data_table(table: DataTable) -> None:
    """Print a table and its notes on stdout."""
    rows = [[_shown(value) for value in row] for row in table.rows]
    _write_wrapped(table.caption)
    print_table([_title(column) for column in table.columns], rows)
    for note in table.notes:
        _write_wrapped(note)


def _write_wrapped(text: str) -> None:
    for line in wrap(text, USUAL):
        write(line)


def _shown(value: Value) -> str:
    return f"{value.text} ({value.reason})" if value.reason and value.number is None else value.text
