"""The rules that a table must keep to become a manifest; errors name the rows that break one."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from stores.errors import ManifestError
from stores.manifest.columns import OPTIONAL_COLUMNS, encode_column, plain_uris
from stores.manifest.uri_policy import CONTROL, as_re2, refuse_bad_uris, shown

if TYPE_CHECKING:
    import pyarrow as pa

#: Says where a row stands in the user's file, for instance `line 7`.
Where = Callable[[int], str]
_SHOWN = 3


def refuse_bad_table(table: "pa.Table", where: Where, source: str, *, allow_outside: bool) -> None:
    """Apply all rules to a table with the columns of a manifest.

    Args:
        table: as `stores.manifest.columns.arrange` returns it.
        where: says where a row stands in the source.
        source: the file or folder, for messages.
        allow_outside: admit absolute uris and `..`.

    Raises:
        ManifestError: a duplicate, empty or multi-line id; a control character; an infinite or conflicting
            label; a malformed digest.
        PathRefused: uris against `stores.manifest.uri_policy`.
    """
    _refuse_bad_ids(table, where, source)
    refuse_bad_uris(table["uri"], where, allow_outside=allow_outside)
    _refuse_controls(table, where, source)
    _refuse_infinite_labels(table["label"], where, source)
    _refuse_conflicting_labels(table, where, source)
    if "sha256" in table.column_names:
        _refuse_bad_digests(table["sha256"], where, source)


def _refuse_bad_ids(table: "pa.Table", where: Where, source: str) -> None:
    import pyarrow.compute as pc

    ids = table["image_id"]
    _refuse_rows(
        pc.match_substring_regex(ids, pattern="^$|" + as_re2(CONTROL)), ids, where, source,
        "image_id that is empty or not one line of text", "Every image has a name of one line",
    )  # fmt: skip
    if pc.count_distinct(ids).as_py() == len(ids):
        return
    codes, vocabulary = encode_column(ids)
    repeated = np.flatnonzero(np.bincount(codes) > 1)
    examples = "; ".join(
        f"{shown(vocabulary[code])} in {', '.join(map(where, np.flatnonzero(codes == code)[:3].tolist()))}"
        for code in repeated[:_SHOWN].tolist()
    )
    raise ManifestError(
        f"{source}: {len(repeated)} image_id stand more than once: {examples}",
        "An image_id names one row; text that looks the same is the same",
        "drop the repeated rows or number them",
    )


def _refuse_controls(table: "pa.Table", where: Where, source: str) -> None:
    import pyarrow.compute as pc

    for name in OPTIONAL_COLUMNS:
        _refuse_rows(
            pc.match_substring_regex(table[name], pattern=as_re2(CONTROL)), table[name], where, source,
            f"{name} with a line break or control character",
            "Labels, splits, groups, studies and views are one line of text; is a quote left open?",
        )  # fmt: skip


def _refuse_infinite_labels(labels: "pa.ChunkedArray", where: Where, source: str) -> None:
    import pyarrow.compute as pc

    mask = pc.match_substring_regex(labels, pattern=r"^[+-]?inf(inity)?$", ignore_case=True)
    _refuse_rows(mask, labels, where, source, "infinite label", "A label is a class name or empty")


def _refuse_bad_digests(digests: "pa.ChunkedArray", where: Where, source: str) -> None:
    import pyarrow.compute as pc

    mask = pc.invert(pc.match_substring_regex(digests, pattern=r"^([0-9a-f]{64})?$"))
    _refuse_rows(mask, digests, where, source, "malformed sha256", "A SHA-256 is 64 hex digits, or empty")


def _refuse_rows(
    mask: Any, column: "pa.ChunkedArray", where: Where, source: str, what: str, rule: str
) -> None:
    """Raise if any row of the Arrow mask is set, showing the first few."""
    rows = np.flatnonzero(mask.to_numpy(zero_copy_only=False))
    if not len(rows):
        return
    examples = "; ".join(f"{where(row)}: {shown(column[row].as_py())}" for row in rows[:_SHOWN].tolist())
    count = "a row" if len(rows) == 1 else f"{len(rows)} rows"
    raise ManifestError(f"{source}: {count} with {what}: {examples}", rule, "correct or remove these rows")


def _refuse_conflicting_labels(table: "pa.Table", where: Where, source: str) -> None:
    """Refuse one file with two labels: at least one of them is wrong."""
    import pyarrow.compute as pc

    uris = plain_uris(table["uri"])
    if pc.count_distinct(uris).as_py() == len(uris):
        return
    files, names = encode_column(uris)
    labels, vocabulary = encode_column(table["label"])
    rows = np.flatnonzero(labels >= 0)
    lowest = np.full(len(names), len(vocabulary))
    highest = np.full(len(names), -1)
    np.minimum.at(lowest, files[rows], labels[rows])
    np.maximum.at(highest, files[rows], labels[rows])
    conflicting = np.flatnonzero(lowest < highest)
    if not len(conflicting):
        return
    examples = "; ".join(
        f"{shown(names[file])} is {shown(vocabulary[lowest[file]])} and {shown(vocabulary[highest[file]])} "
        f"({', '.join(map(where, rows[files[rows] == file][:3].tolist()))})"
        for file in conflicting[:_SHOWN].tolist()
    )
    raise ManifestError(
        f"{source}: {len(conflicting)} files have conflicting labels: {examples}",
        "An image has one label",
        "keep one label a file; findings that occur together belong into columns of their own",
    )
