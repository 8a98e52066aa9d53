"""Typed columns as text, by explicit rules."""

from typing import TYPE_CHECKING, Any

import numpy as np

from stores.errors import ManifestError
from stores.manifest.text import clean_names
from stores.manifest.uri_policy import shown

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def as_text(table: "pa.Table", source: str) -> tuple["pa.Table", tuple[str, ...]]:
    """Turn typed columns into text.

    Text stays; null and NaN become the empty text; integers and booleans become their decimal text or
    `true`/`false`; floats without a fraction lose their `.0` (integers with gaps arrive as floats), other
    floats become the shortest text that reads back; dates become ISO text. Anything nested or binary is
    refused, and so are floats as `image_id` or `uri`.

    Args:
        table: any Arrow table.
        source: where it comes from, for messages.

    Returns:
        (table of `large_string` columns without nulls and without metadata, notes on what was converted).

    Raises:
        ManifestError: a column that has no text form.
    """
    import pyarrow as pa

    columns, notes = [], []
    for field, column in zip(table.schema, table.columns, strict=True):
        text, note = _column_text(field.name, column, source)
        columns.append(text)
        notes += [note] if note else []
    return pa.Table.from_arrays(columns, names=table.column_names), tuple(notes)


def frame_as_text(frame: "pd.DataFrame") -> tuple["pa.Table", tuple[str, ...]]:
    """Turn a pandas DataFrame into a table of text, under clean column names; its index is ignored.

    Returns:
        As `as_text`.

    Raises:
        ManifestError: column names that are not unique text, or a column that has no text form.
    """
    import pyarrow as pa

    names = list(frame.columns)
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ManifestError("The frame's columns", "They have unique names of text", "rename them")
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, UnicodeError) as error:
        raise ManifestError(
            f"The frame does not convert ({str(error).splitlines()[0]})",
            "A column holds values of one type, and text is valid Unicode",
            "convert its columns to text",
        ) from error
    names, name_notes = clean_names(names)
    if len(set(names)) < len(names):
        raise ManifestError("The frame's columns", "They have unique names of text", "rename them")
    text, notes = as_text(table.rename_columns(names), "the frame")
    return text, name_notes + notes


def _column_text(name: str, column: Any, source: str) -> tuple[Any, str]:
    """Return a column as text, and a note, empty if nothing was converted."""
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
        values = [None if value is None else narrow(value) for value in values]
    return pa.chunked_array([pa.array([_number_text(value) for value in values], pa.large_string())])


def _number_text(value: Any) -> str | None:
    if value is None or value != value:
        return None
    if float(value).is_integer() and abs(float(value)) < 2**53:
        return str(int(value))
    return str(value)
