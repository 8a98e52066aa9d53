"""What the two iChallenge sets share: the study's split, whose tables are not part of the downloads."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.datasets import _layout, _splits, _tables
from engine.errors import ManifestError

if TYPE_CHECKING:
    import pandas as pd


def published(
    frame: "pd.DataFrame", root: Path, candidates: Sequence[str], published_rows: int
) -> tuple["pd.DataFrame", list[str]]:
    """Split as the study did: the rows of its table are shuffled, or the sorted names if there is no table.

    Args:
        frame: column `image_id`, sorted.
        root: the user's folder.
        candidates: possible paths of the table, of which only the column with names is read.
        published_rows: number of rows that the study had.

    Returns:
        (rows in shuffled order with `split`; notes on why this is not the study's split, if it is not).

    Raises:
        ManifestError: no column of the table has names of images in `frame`.
    """
    path = _layout.optional_file(root, candidates)
    if path is None:
        notes = [
            f"{root / candidates[0]} is missing, the study's own table: names in order are shuffled, so "
            "these are the study's rules, but not its split"
        ]
    else:
        names = _names(path, set(frame["image_id"]))
        left_out = len(frame) - len(names)
        notes = [f"{left_out:,} images left out: they are not in {path}"] if left_out else []
        row_of = {name: row for row, name in enumerate(frame["image_id"])}
        frame = frame.iloc[[row_of[name] for name in names]]
    return _splits.published_split(frame), notes + _splits.part_note(len(frame), published_rows)


def _names(path: Path, known: set[str]) -> "pd.Series[str]":
    """Return file names without suffix in the order of the table. Raises ManifestError."""
    table = _tables.read(path, ())
    for column in table:
        names = table[column].str.strip().str.replace(r"\.jpe?g$", "", case=False, regex=True).str.upper()
        if names.isin(known).any():
            _tables.refuse_rows(path, ~names.isin(known), names, "Every image that it names is there")
            _tables.refuse_repeats(path, names)
            return names
    raise ManifestError(
        f"{path} has no column with names of images, such as {min(known)}",
        "The study's table names one image a row",
        "check that this is the right file, or remove it",
    )
