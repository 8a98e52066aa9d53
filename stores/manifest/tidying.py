"""Tables put in order where they come in: text cleaned, missing cells emptied, splits by their usual names.

It is done once: what a bank or a Parquet manifest of embank holds stays as it is. Paths stay as they are too,
since a file's name may end in a space or have its letters in parts. In `image_id` the words for a missing
value are literal: an image may well be called NA.
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
    """A table of text after cleaning.

    Attributes:
        table: as it came where nothing was to be done.
        notes: what was done, one sentence for each column and kind.
        changed: whether any cell differs from what came.
    """

    table: "pa.Table"
    notes: tuple[str, ...] = field(default=())
    changed: bool = False


def tidy(table: "pa.Table") -> Tidied:
    """Clean every column of a table, empty its missing cells and put splits into the usual words.

    Args:
        table: of `large_string` columns without nulls, under the names of a manifest.
    """
    import pyarrow as pa

    given = table
    if "uri" in table.column_names and "image_id" not in table.column_names:
        table = table.add_column(0, "image_id", table["uri"])  # a path as an id is a name that people type
    columns, notes, changed = [], [], False
    for name, column in zip(table.column_names, table.columns, strict=True):
        new, said = _column(name, column)
        changed |= new is not column
        columns.append(new)
        notes += said
    if not changed:
        return Tidied(given, tuple(notes))
    return Tidied(pa.Table.from_arrays(columns, names=table.column_names), tuple(notes), True)


def _column(name: str, column: "pa.ChunkedArray") -> tuple["pa.ChunkedArray", list[str]]:
    """(a column put in order, the same object where nothing was to be done; notes)."""
    import pyarrow.compute as pc

    new = cleaned(column)
    differ = pc.not_equal(column, new)
    count = _sum(differ)
    spaces = pc.and_(differ, pc.equal(new, "")) if count else differ
    blank = _sum(spaces)
    if name == "uri":
        return (pc.if_else(spaces, "", column) if blank else column), _path_notes(count - blank)
    notes = []
    if count > blank:
        notes.append(
            f"column {name}: {count - blank:,} cells read without what cannot be seen (spaces at the ends, "
            "no-break or invisible characters, letters in parts)"
        )
    emptied = {"only spaces": blank} if blank else {}
    if name not in _LITERAL:
        missing = pc.is_in(new, value_set=missing_words())
        emptied |= _counted(new.filter(missing))
        new = pc.if_else(missing, "", new) if _sum(missing) else new
    if emptied:
        lost = (
            "; if one of these words is a class, write it in another way"
            if name == "label" and set(emptied) - {"only spaces"}
            else ""
        )
        notes.append(f"column {name}: {sum(emptied.values()):,} cells are missing ({_listed(emptied)}){lost}")
    if name == "split":
        new, said = _usual_splits(new)
        notes += said
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

    counts = _counted(column)
    become = {word: usual for word in counts if (usual := split_words.usual(word)) not in (None, word)}
    if not become:
        return column, []
    at = pc.index_in(column, value_set=pa.array(list(become), pa.large_string()))
    new = pc.coalesce(pa.array(list(become.values()), pa.large_string()).take(at), column)
    said = [
        f"column split: {counts[word]:,} rows of {shown(word)} are `{part}`" for word, part in become.items()
    ]
    return new, said


def _sum(mask: Any) -> int:
    import pyarrow.compute as pc

    return int(pc.sum(mask).as_py() or 0)


def _counted(column: "pa.ChunkedArray") -> dict[str, int]:
    """Value -> number of cells, most frequent first."""
    import pyarrow.compute as pc

    pairs = [(each["values"], each["counts"]) for each in pc.value_counts(column).to_pylist()]
    return dict(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))


def _listed(counts: Mapping[str, int]) -> str:
    words = [f"{word} {n:,}" for word, n in itertools.islice(counts.items(), _SHOWN)]
    return ", ".join(words + (["..."] if len(counts) > _SHOWN else []))
