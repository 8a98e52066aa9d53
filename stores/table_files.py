"""Tables of results as files that other programs read: CSV, Parquet, JSON or LaTeX, by the ending."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stores.bank.export import spreadsheet_safe
from stores.outputs import new_file

_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}


def write_table(
    columns: Mapping[str, Sequence[Any]],
    out: Path,
    digits: int | None = 9,
    types: Mapping[str, str] | None = None,
) -> None:
    """Write columns of equal length, whole or not at all.

    CSV and LaTeX show floating-point numbers with `digits` decimals, and in CSV a cell that a spreadsheet
    would run is quoted; Parquet and JSON (a list of objects) keep every value as it is, NaN as null.

    Args:
        columns: name -> int, float, str or None cells; None is an empty cell, or null.
        out: its ending says the format; missing folders are made.
        digits: None writes as many as tell a float64 from all others.
        types: of the columns in Parquet, as Arrow names them; None infers them from the cells.

    Raises:
        Refused: the folder is not writable. MachineFault: the disk is full or fails.
    """
    kind = out.suffix.lower()
    if kind == ".parquet":
        data = _parquet(columns, types or {})
    elif kind == ".json":
        data = _json(columns)
    else:
        text = _tex(columns, digits) if kind == ".tex" else _csv(columns, digits)
        data = text.encode("utf-8", "surrogatepass")
    with new_file(out) as file:
        file.write(data)


def _shown(cell: Any, digits: int | None) -> str:
    if cell is None:
        return ""
    return f"{cell:.{digits}f}" if isinstance(cell, float) and digits is not None else str(cell)


def _rows(columns: Mapping[str, Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
    return zip(*columns.values(), strict=True)


def _csv(columns: Mapping[str, Sequence[Any]], digits: int | None) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in _rows(columns):
        writer.writerow([spreadsheet_safe(c) if isinstance(c, str) else _shown(c, digits) for c in row])
    return text.getvalue()


def _tex(columns: Mapping[str, Sequence[Any]], digits: int | None) -> str:
    rows = ([_shown(cell, digits) for cell in row] for row in _rows(columns))
    names, *lines = [" & ".join(map(_escaped, row)) + r" \\" for row in (list(columns), *rows)]
    head = [rf"\begin{{tabular}}{{{'l' * len(columns)}}}", r"\hline", names, r"\hline"]
    return "\n".join([*head, *lines, r"\hline", r"\end{tabular}", ""])


def _escaped(cell: str) -> str:
    return "".join(_TEX.get(c, c) for c in cell)


def _plain(cell: Any) -> Any:
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _json(columns: Mapping[str, Sequence[Any]]) -> bytes:
    rows = [dict(zip(columns, map(_plain, row), strict=True)) for row in _rows(columns)]
    return (json.dumps(rows, indent=1) + "\n").encode("ascii")


def _parquet(columns: Mapping[str, Sequence[Any]], types: Mapping[str, str]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    arrays = {
        name: pa.array(list(cells), pa.type_for_alias(types[name]) if name in types else None)
        for name, cells in columns.items()
    }
    pq.write_table(pa.table(arrays), buffer)
    return buffer.getvalue()
