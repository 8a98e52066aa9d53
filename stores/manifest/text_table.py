"""A table of text on its way from a file to a manifest."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stores.backends import files
from stores.backends.location import Place
from stores.errors import ManifestError
from stores.manifest.uri_policy import shown

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class TextTable:
    """A table whose cells are all text.

    Attributes:
        table: Arrow table of `large_string` columns without nulls, in the file's order.
        lines: line of each row in a CSV file (int64 [rows]), None for Parquet.
        root: root kept in the file, absolute; None where it keeps none.
        notes: what was converted, one sentence each.
        written_by_embank: the file was written by embank, hence its text is clean already.
    """

    table: "pa.Table"
    lines: "np.ndarray[Any, np.dtype[np.int64]] | None" = None
    root: Path | None = None
    notes: tuple[str, ...] = ()
    written_by_embank: bool = False

    def where(self, row: int) -> str:
        """Say where a row stands in the file, for messages."""
        return f"row {row}" if self.lines is None else f"line {self.lines[row]}"


def folder_of(path: Place) -> Path:
    """Return the absolute folder of a file; for an object, a path no file can have that spells its URL."""
    local = files.local_path(path)
    return Path("/", str(path.parent)) if local is None else local.absolute().parent


def refuse_bad_names(path: Place, names: Sequence[str]) -> None:
    """Refuse column names that are repeated, blank or not printable. Raises ManifestError."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ManifestError(
            f"{path}: column {', '.join(map(shown, repeated))} stands more than once in the header",
            "Column names are unique",
            "rename or drop one",
        )
    unprintable = [name for name in names if not name.strip() or not name.isprintable()]
    if unprintable:
        raise ManifestError(
            f"{path}: column {names.index(unprintable[0]) + 1} is named {shown(unprintable[0])}",
            "Every column has a printable name",
            "name it; pandas writes an unnamed index column unless told index=False",
        )
