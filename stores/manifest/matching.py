"""Matching the rows of a manifest with the images of a bank: by `image_id`, else by uri, else by content.

One criterion serves all rows: the first under which every row matches exactly one image of the bank, and no
two rows match the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from stores.bank.contents import Table, known, unknown
from stores.errors import ManifestError
from stores.manifest.columns import plain_uris
from stores.manifest.manifest import Manifest
from stores.manifest.uri_policy import shown

if TYPE_CHECKING:
    import pyarrow as pa

Criterion = Literal["image_id", "uri", "content"]
#: Column whose cells are the ids of other rows (`engine.datasets.view_pairs`).
_PARTNERS = "pair"
_SHOWN = 3


@dataclass(frozen=True)
class Match:
    """The rows of a bank that the rows of a manifest match.

    Attributes:
        by: the criterion; `content` is the SHA-256 of a file.
        rows: intp [rows of the manifest], no two equal: row of the bank.
    """

    by: Criterion
    rows: npt.NDArray[np.intp]


def match(own: Manifest, other: Manifest, contents: Table | None = None) -> Match:
    """Find the images of a manifest among those of a bank.

    Args:
        own: the bank's manifest.
        other: the manifest to match.
        contents: SHA-256 of the files that the bank's rows were made from, uint8 [rows, 32]; zeros where
            unknown, None where all are.

    Raises:
        ManifestError: no criterion matches every row; the message has the number of rows that each matches.
    """
    matches: dict[Criterion, npt.NDArray[np.intp]] = {}
    for criterion, own_keys, other_keys in _criteria(own, other, contents):
        matches[criterion] = _match_keys(own_keys, other_keys)
        if (matches[criterion] >= 0).all():
            return Match(criterion, matches[criterion])
    raise _no_match(other, matches)


def with_partners_of(own: Manifest, other: Manifest, matched: Match) -> Manifest:
    """Translate the column `pair` of a manifest, which names other rows by their ids, into the bank's ids.

    Args:
        own: the bank's manifest.
        other: the manifest whose column is translated.
        matched: what `match` returned for the two.

    Returns:
        The manifest with the new column; the given one if there is nothing to translate.
    """
    import pyarrow as pa

    if matched.by == "image_id" or _PARTNERS not in other.table.column_names:
        return other
    ids = dict(zip(other.image_ids, (own.image_ids[row] for row in matched.rows.tolist()), strict=True))
    cells = [ids.get(name, name) for name in other.column(_PARTNERS)]
    column = pa.chunked_array([pa.array(cells, pa.large_string())])
    position = other.table.column_names.index(_PARTNERS)
    return replace(other, table=other.table.set_column(position, _PARTNERS, column))


def digests(own: Manifest, contents: Table | None) -> list[str]:
    """Return the SHA-256 of each of a bank's images in hex.

    It is that of the file the row was made from if known, else the manifest's, else empty.
    """
    contents = unknown(len(own)) if contents is None else contents
    in_manifest = own.sha256s or [""] * len(own)
    of_rows = [
        row.tobytes().hex() if is_known else ""
        for row, is_known in zip(contents, known(contents), strict=True)
    ]
    return [of_row or listed for of_row, listed in zip(of_rows, in_manifest, strict=True)]


def _criteria(
    own: Manifest, other: Manifest, contents: Table | None
) -> Iterator[tuple[Criterion, list[str], list[str]]]:
    """Yield (criterion, keys of the bank's images, keys of the manifest's rows), computed when needed."""
    yield "image_id", own.image_ids, other.image_ids
    yield "uri", _plain(own.table["uri"]), _plain(other.table["uri"])
    yield "content", digests(own, contents), other.sha256s or [""] * len(other)


def _plain(uris: "pa.ChunkedArray") -> list[str]:
    return plain_uris(uris).to_pylist()  # type: ignore[no-any-return]


def _match_keys(own: list[str], other: list[str]) -> npt.NDArray[np.intp]:
    """Return intp [other]: the position of each key in `own`; -1 where empty, absent or ambiguous."""
    own_rows, other_rows = _unique_rows(own), _unique_rows(other)
    return np.array([own_rows.get(key, -1) if other_rows.get(key, -1) >= 0 else -1 for key in other], np.intp)


def _unique_rows(keys: list[str]) -> dict[str, int]:
    """Return key -> row; -1 if several rows have the key."""
    rows: dict[str, int] = {}
    for row, key in enumerate(keys):
        if key:
            rows[key] = -1 if key in rows else row
    return rows


def _no_match(other: Manifest, matches: dict[Criterion, npt.NDArray[np.intp]]) -> ManifestError:
    best = max(matches, key=lambda criterion: (matches[criterion] >= 0).sum())  # the first of equals
    absent = np.flatnonzero(matches[best] < 0)
    names = other.image_ids if best == "image_id" else other.uris
    examples = ", ".join(shown(names[row]) for row in absent[:_SHOWN].tolist())
    counts = ", ".join(f"by {criterion} {(rows >= 0).sum()}" for criterion, rows in matches.items())
    remedy = "leave these rows out, or embed this manifest into a bank of its own"
    if other.sha256s is None:
        remedy += "; files that were renamed are known by their content, if the manifest has a column sha256 "
        remedy += "(`embank manifest folder --hash`)"
    return ManifestError(
        f"{len(absent)} of {len(other)} images are not in the bank: {examples}"
        + ", ..." * (len(absent) > _SHOWN)
        + f" (one image of the bank each: {counts})",
        "Labels go to images that were embedded, all by image_id, else all by uri, else all by content",
        remedy,
    )
