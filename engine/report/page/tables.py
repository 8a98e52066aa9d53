"""Tables of a page as data: JSON on the page, CSV and LaTeX beside it.

The page's script writes the same CSV and LaTeX from the JSON; a test holds the two against each other.
"""

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from engine.report.page.blocks import Column, DataTable, Value
from engine.report.page.texts import shown
from stores.bank.export import spreadsheet_safe
from stores.json_types import Json, JsonObject

#: First line of a LaTeX table.
TEX_FIRST = "% Made by embank report; needs \\usepackage{booktabs}."
#: Character -> LaTeX.
TEX: JsonObject = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "<": "$<$",
    ">": "$>$",
    "−": "$-$",
    "–": "--",
    "—": "---",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "≈": r"$\approx$",
    "→": r"$\to$",
    "Δ": r"$\Delta$",
    "κ": r"$\kappa$",
    "χ": r"$\chi$",
    "²": "$^2$",
    "·": r"$\cdot$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "…": r"\dots{}",
    "\u00a0": "~",
    "\u202f": r"\,",
}


@dataclass(frozen=True)
class Span:
    """Neighbouring columns of one group.

    Attributes:
        title: of the group; "" for none.
        indices: of the columns.
    """

    title: str
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Heads:
    """Heads of a table: whether there are groups, and which columns they span."""

    grouped: bool
    spans: tuple[Span, ...]


def heads(table: DataTable) -> Heads:
    """Return the groups of neighbouring columns."""
    runs = groupby(range(len(table.columns)), key=lambda index: table.columns[index].group)
    spans = tuple(Span(title, tuple(indices)) for title, indices in runs)
    return Heads(any(span.title for span in spans), spans)


def document(table: DataTable) -> JsonObject:
    """Return a table as JSON: `{caption, columns: [{title, group, numeric}], rows}`.

    A cell is its text, or `[text, number, low, high, strong, reason]` without trailing nulls; numbers have
    full precision, undefined ones are null.
    """
    return {
        "caption": shown(table.caption),
        "columns": [_column(column) for column in table.columns],
        "rows": [[_cell(value) for value in row] for row in table.rows],
    }


def _column(column: Column) -> Json:
    body: JsonObject = {"title": shown(column.title)}
    if column.group:
        body["group"] = shown(column.group)
    if column.numeric:
        body["numeric"] = True
    return body


def _cell(value: Value) -> Json:
    parts: list[Json] = [
        shown(value.text),
        _finite(value.number),
        _finite(value.low),
        _finite(value.high),
        1 if value.strong else None,
        shown(value.reason) or None,
    ]
    while len(parts) > 1 and parts[-1] is None:
        parts.pop()
    return parts if len(parts) > 1 else parts[0]


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def csv_of(table: DataTable) -> str:
    """Return a table as CSV: full precision, columns for the ends of intervals and for reasons.

    A text that a spreadsheet would take for a formula has a leading quote.
    """
    output = io.StringIO(newline="")
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow([spreadsheet_safe(shown(name)) for name in _csv_names(table)])
    extras = [_extras(table, index) for index in range(len(table.columns))]
    for row in table.rows:
        cells: list[str] = []
        for column, value, extra in zip(table.columns, row, extras, strict=True):
            cells += _csv_cells(column, value, extra)
        writer.writerow(cells)
    return output.getvalue()


def _extras(table: DataTable, index: int) -> tuple[bool, bool]:
    """Return whether a column has intervals, and whether it has undefined numbers with a reason."""
    values = [row[index] for row in table.rows]
    intervals = any(_finite(v.low) is not None or _finite(v.high) is not None for v in values)
    return intervals, table.columns[index].numeric and any(v.reason for v in values)


def _csv_names(table: DataTable) -> Iterable[str]:
    for index, column in enumerate(table.columns):
        name = f"{column.group}: {column.title}" if column.group else column.title
        intervals, reasons = _extras(table, index)
        yield name
        if intervals:
            yield from (f"{name} low", f"{name} high")
        if reasons:
            yield f"{name} reason"


def _csv_cells(column: Column, value: Value, extras: tuple[bool, bool]) -> list[str]:
    number = _finite(value.number)
    if number is None:
        cells = ["" if column.numeric else spreadsheet_safe(shown(value.text))]
    else:
        cells = [_digits(number)]
    if extras[0]:
        cells += [_digits(_finite(value.low)), _digits(_finite(value.high))]
    if extras[1]:
        cells.append(spreadsheet_safe(shown(value.reason)))
    return cells


def _digits(number: float | None) -> str:
    """Return the shortest digits that read back as the same number."""
    if number is None:
        return ""
    return str(int(number)) if number == int(number) and abs(number) < 1e15 else repr(float(number))


def tex_of(table: DataTable) -> str:
    """Return a table as LaTeX for the package booktabs; strong cells are bold."""
    kinds = "".join("r" if column.numeric else "l" for column in table.columns)
    spans = heads(table)
    lines = [
        TEX_FIRST,
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(table.caption)}}}",
        rf"\label{{{table.id}}}",
        rf"\begin{{tabular}}{{{kinds}}}",
        r"\toprule",
        *(_group_lines(spans) if spans.grouped else []),
        " & ".join(escaped(column.title) for column in table.columns) + r" \\",
        r"\midrule",
        *(" & ".join(map(_tex_cell, row)) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _group_lines(spans: Heads) -> list[str]:
    cells, rules = [], []
    for span in spans.spans:
        first, last = span.indices[0] + 1, span.indices[-1] + 1
        if span.title:
            cells.append(rf"\multicolumn{{{len(span.indices)}}}{{c}}{{{escaped(span.title)}}}")
            rules.append(rf"\cmidrule(lr){{{first}-{last}}}")
        else:
            cells += [""] * len(span.indices)
    return [" & ".join(cells) + r" \\", " ".join(rules)]


def _tex_cell(value: Value) -> str:
    text = escaped(value.text)
    return rf"\textbf{{{text}}}" if value.strong and text else text


def escaped(text: str) -> str:
    """Return text whose special characters LaTeX prints; line ends become spaces."""
    return "".join(str(TEX.get(c, c)) for c in shown(text).replace("\n", " "))
