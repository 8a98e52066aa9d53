"""What the two iChallenge sets share: the study shuffled tables of its own, which are in no download."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.datasets import _layout, _splits, _tables
from engine.errors import ManifestError

if TYPE_CHECKING:
    import pandas as pd


def published(
    frame: "pd.DataFrame", root: Path, candidates: Sequence[str], whole: int
) -> tuple["pd.DataFrame", list[str]]:
    """The study's split: the rows of its table shuffled; without the table, the names in order.

    Args:
        frame: column `image_id`, in the order of names.
        candidates: where the table may lie. Of its columns only the one with names is read.
        whole: rows that the study had.

    Returns:
        (rows in shuffled order with `split`, notes on why this is not the study's split, if it is not).

    Raises:
        ManifestError: no column of the table holds names of images that are there.
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
        place = {name: row for row, name in enumerate(frame["image_id"])}
        frame = frame.iloc[[place[name] for name in names]]
    return _splits.published_split(frame), notes + _splits.part_note(len(frame), whole)


def _names(path: Path, known: set[str]) -> "pd.Series[str]":
    """File names without suffix in the order of the table."""
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
