"""Label tables as downloaded: read whole, as text, and refused with the row where they are wrong."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import ManifestError
from stores.manifest.tables import refuse_special
from stores.manifest.text import clean
from stores.manifest.uri_policy import shown

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 3


def read(path: Path, columns: Sequence[str], *, header: bool = True) -> "pd.DataFrame":
    """Read a CSV label table as text.

    Args:
        path: UTF-8, commas.
        columns: names that must be there; without header, the names of all columns.
        header: whether the first line holds names. Names that an unquoted comma cuts in two stay so, and an
            empty last name (a comma at the end of each line) is dropped with its column.

    Returns:
        all columns as text in the order of the file, the empty text where a cell is empty.

    Raises:
        ManifestError: not a file, not UTF-8, ragged, without rows, or lacking a column.
    """
    import pandas as pd

    names = _header(path) if header else list(columns)
    missing = [name for name in columns if name not in names]
    if missing:
        raise ManifestError(
            f"{path} has no column {_list(missing)}; it has {_list(names[:20])}",
            f"The label table as downloaded has {', '.join(columns)}",
            "fetch the table again, or check that this is the right file",
        )
    table = _parse(path, len(names), skip=int(header))
    if not len(table):
        raise ManifestError(f"{path} has no rows", "A label table lists images", "fetch it again")
    # Ages and the like may hold what pandas would take for missing; here every cell is text.
    cells = {name: table.column(i).to_pandas() for i, name in enumerate(names) if name}
    return pd.DataFrame(cells)


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names))


def _header(path: Path) -> list[str]:
    refuse_special(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader(file), [])
    except IsADirectoryError as error:
        raise ManifestError(f"{path} is a folder", "A label table is a file", "check the download") from error
    except OSError as error:
        raise ManifestError(
            f"{path}: {error.strerror}", "The label table is a readable file", "check the download"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise _not_csv(path, str(error)) from error
    names = [clean(name) for name in names]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice or "" in names[:-1] or not names:
        found = f"names {_list(twice)} twice" if twice else "has a column without a name"
        raise ManifestError(
            f"{path} {found}: {shown(','.join(names))}", "Each column of a table has its own name", "mend it"
        )
    return names


def _parse(path: Path, width: int, skip: int) -> Any:
    import pyarrow as pa
    from pyarrow import csv as pacsv

    names = [str(i) for i in range(width)]
    try:
        return pacsv.read_csv(
            path,
            # With threads Arrow does not know the number of a bad row.
            pacsv.ReadOptions(use_threads=False, column_names=names, skip_rows=skip, block_size=1 << 26),
            convert_options=pacsv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    except pa.ArrowInvalid as error:
        reason = str(error).splitlines()[0]
        if "Empty CSV" in reason:
            raise ManifestError(
                f"{path} has no rows", "A label table lists images", "fetch it again"
            ) from error
        raise _not_csv(path, reason) from error
    except OSError as error:
        raise ManifestError(
            f"{path}: {error.strerror or error}", "The label table is a readable file", "check the download"
        ) from error


def _not_csv(path: Path, reason: str) -> ManifestError:
    return ManifestError(
        f"{path}: {reason}",
        "A label table is UTF-8 text with commas, and each row has as many fields as the header",
        "fetch it again, or mend that row",
    )


def extract(texts: "pd.Series[str]", pattern: str) -> "pd.DataFrame":
    """The named groups of a regular expression (RE2) as columns; missing where a text does not match."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.extract_regex(pa.array(texts, pa.string()), pattern)
    return pa.Table.from_struct_array(found).to_pandas()  # type: ignore[no-any-return]


def refuse_rows(path: Path, bad: Any, values: "pd.Series[str]", rule: str) -> None:
    """Refuse a table for some of its rows, showing the first few.

    Args:
        bad: bool [rows].
        values: text [rows], what to show of a bad row.
        rule: what it should have been.

    Raises:
        ManifestError: any row is bad. Rows count from 1, the header aside.
    """
    rows = np.flatnonzero(np.asarray(bad))
    if not len(rows):
        return
    examples = "; ".join(f"row {row + 1}: {shown(values.iloc[row])}" for row in rows[:_SHOWN].tolist())
    count = "a row" if len(rows) == 1 else f"{len(rows):,} rows"
    raise ManifestError(
        f"{path} has {count} against the rule: {examples}", rule, "fetch the table again, or mend these rows"
    )


def refuse_repeats(path: Path, names: "pd.Series[str]") -> None:
    """Refuse a table that names an image twice.

    Raises:
        ManifestError: showing the first few.
    """
    refuse_rows(path, names.duplicated().to_numpy(), names, "Each image stands in the table once")
