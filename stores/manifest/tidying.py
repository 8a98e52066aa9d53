"""Tidying the tables of users: text cleaned, missing cells emptied, splits under their usual names.

It is done once: the cells of a bank, or of a Parquet manifest that embank wrote, stay as they are. Paths stay
as they are too, since the name of a file may end in a space or contain decomposed letters. In `image_id` the
words for a missing value are literal: an image may well be called NA.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stores.manifest import split_words
from stores.manifest.text import cleaned, missing_words
from stores.manifest.uri_policy import shown

if TYPE_CHECKING:
    import pyarrow as pa

#: Columns in which the words for a missing value are literal.
_LITERAL = ("image_id", "uri", "sha256")
_SHOWN = 5


@dataclass(frozen=True)
class Tidied:
    """A table of text after tidying.

    Attributes:
        table: the tidied table; the given one if nothing changed.
        notes: what was done, one sentence for each column and kind.
        changed: whether any cell differs from the given table.
    """

    table: "pa.Table"
    notes: tuple[str, ...] = field(default=())
    changed: bool = False


def tidy(table: "pa.Table") -> Tidied:
    """Clean every column of a table, empty its missing cells and give splits their usual names.

    Args:
        table: of `large_string` columns without nulls, under the names of a manifest.
    """
    import pyarrow as pa

    original = table
    if "uri" in table.column_names and "image_id" not in table.column_names:
        # A path that serves as the id is cleaned, unlike the uri: ids are typed by people.
        table = table.add_column(0, "image_id", table["uri"])
    columns, notes, changed = [], [], False
    for name, column in zip(table.column_names, table.columns, strict=True):
        new, column_notes = _tidy_column(name, column)
        changed |= new is not column
        columns.append(new)
        notes += column_notes
    if not changed:
        return Tidied(original, tuple(notes))
    return Tidied(pa.Table.from_arrays(columns, names=table.column_names), tuple(notes), True)


def _tidy_column(name: str, column: "pa.ChunkedArray") -> tuple["pa.ChunkedArray", list[str]]:
    """Return a tidied column, the same object if nothing changed, and notes."""
    import pyarrow.compute as pc

    new = cleaned(column)
    differs = pc.not_equal(column, new)
    count = _count(differs)
    becomes_empty = pc.and_(differs, pc.equal(new, "")) if count else differs
    blank = _count(becomes_empty)
    if name == "uri":
        return (pc.if_else(becomes_empty, "", column) if blank else column), _path_notes(count - blank)
    notes = []
    if count > blank:
        notes.append(
            f"column {name}: {count - blank:,} cells read without what cannot be seen (spaces at the ends, "
            "no-break or invisible characters, letters in parts)"
        )
    emptied = {"only spaces": blank} if blank else {}
    if name not in _LITERAL:
        missing = pc.is_in(new, value_set=missing_words())
        emptied |= _value_counts(new.filter(missing))
        new = pc.if_else(missing, "", new) if _count(missing) else new
    if emptied:
        advice = (
            "; if one of these words is a class, write it in another way"
            if name == "label" and set(emptied) - {"only spaces"}
            else ""
        )
        total = sum(emptied.values())
        notes.append(f"column {name}: {total:,} cells are missing ({_listed(emptied)}){advice}")
    if name == "split":
        new, split_notes = _usual_splits(new)
        notes += split_notes
    return (new if notes else column), notes


def _path_notes(count: int) -> list[str]:
    if not count:
        return []
    return [
        f"column uri: {count:,} paths have spaces at their ends, invisible characters or letters in parts, "
        "and stay as they are: so may the files"
    ]


def _usual_splits(column: "pa.ChunkedArray") -> tuple["pa.ChunkedArray", list[str]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    counts = _value_counts(column)
    usual = {word: part for word in counts if (part := split_words.usual_split(word)) not in (None, word)}
    if not usual:
        return column, []
    index = pc.index_in(column, value_set=pa.array(list(usual), pa.large_string()))
    new = pc.coalesce(pa.array(list(usual.values()), pa.large_string()).take(index), column)
    notes = [
        f"column split: {counts[word]:,} rows of {shown(word)} are `{part}`" for word, part in usual.items()
    ]
    return new, notes


def _count(mask: Any) -> int:
    import pyarrow.compute as pc

    return int(pc.sum(mask).as_py() or 0)


def _value_counts(column: "pa.ChunkedArray") -> dict[str, int]:
    """Return value -> number of cells, most frequent first."""
    import pyarrow.compute as pc

    pairs = [(entry["values"], entry["counts"]) for entry in pc.value_counts(column).to_pylist()]
    return dict(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))


def _listed(counts: Mapping[str, int]) -> str:
    words = [f"{word} {n:,}" for word, n in itertools.islice(counts.items(), _SHOWN)]
    return ", ".join(words + (["..."] if len(counts) > _SHOWN else []))
