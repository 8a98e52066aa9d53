"""Which image of a bank each row of another manifest is: by `image_id`, else by uri, else by content.

One way holds for all rows: the first by which every row is one image of the bank, and no two the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from stores.bank.contents import Table, known, unknown
from stores.errors import ManifestError
from stores.manifest.manifest import Manifest, plain_uris
from stores.manifest.uri_policy import shown

if TYPE_CHECKING:
    import pyarrow as pa

Way = Literal["image_id", "uri", "content"]
#: Column that names other rows, by their ids (`engine.datasets.view_pairs`).
_PARTNERS = "pair"
_SHOWN = 3


@dataclass(frozen=True)
class Match:
    """Rows of a manifest as rows of a bank.

    Attributes:
        by: what they were matched by; `content` is the SHA-256 of a file.
        rows: intp [rows of the manifest], no two equal: row of the bank.
    """

    by: Way
    rows: npt.NDArray[np.intp]


def match(own: Manifest, other: Manifest, contents: Table | None = None) -> Match:
    """Find the images of a manifest among those of a bank.

    Args:
        own: of the bank.
        other: names some of its images.
        contents: what the bank's rows were made from, uint8 [rows, 32]; zeros, or None, where that is not
            known.

    Raises:
        ManifestError: no way finds each row as one image; with how many rows each way finds.
    """
    tried: dict[Way, npt.NDArray[np.intp]] = {}
    for way, keys, wanted in _ways(own, other, contents):
        tried[way] = _rows(keys, wanted)
        if (tried[way] >= 0).all():
            return Match(way, tried[way])
    raise _not_there(other, tried)


def with_partners_of(own: Manifest, other: Manifest, matched: Match) -> Manifest:
    """Name the partners of views (column `pair`) by the bank's ids, where the manifest has others."""
    import pyarrow as pa

    if matched.by == "image_id" or _PARTNERS not in other.table.column_names:
        return other
    ids = dict(zip(other.image_ids, (own.image_ids[row] for row in matched.rows.tolist()), strict=True))
    cells = [ids.get(name, name) for name in other.column(_PARTNERS)]
    column = pa.chunked_array([pa.array(cells, pa.large_string())])
    at = other.table.column_names.index(_PARTNERS)
    return replace(other, table=other.table.set_column(at, _PARTNERS, column))


def digests(own: Manifest, contents: Table | None) -> list[str]:
    """SHA-256 of each of a bank's images in hex: what it was made from, else the manifest's, else empty."""
    contents = unknown(len(own)) if contents is None else contents
    listed = own.sha256s or [""] * len(own)
    made = [row.tobytes().hex() if read else "" for row, read in zip(contents, known(contents), strict=True)]
    return [a or b for a, b in zip(made, listed, strict=True)]


def _ways(
    own: Manifest, other: Manifest, contents: Table | None
) -> Iterator[tuple[Way, list[str], list[str]]]:
    """(way, what the bank's images are known by, what the manifest's rows are known by), when asked for."""
    yield "image_id", own.image_ids, other.image_ids
    yield "uri", _plain(own.table["uri"]), _plain(other.table["uri"])
    yield "content", digests(own, contents), other.sha256s or [""] * len(other)


def _plain(uris: "pa.ChunkedArray") -> list[str]:
    return plain_uris(uris).to_pylist()  # type: ignore[no-any-return]


def _rows(keys: list[str], wanted: list[str]) -> npt.NDArray[np.intp]:
    """intp [wanted]: where each stands among the keys; -1 where it is empty, or not once on either side."""
    once = _once(keys)
    asked = _once(wanted)
    return np.array([once.get(key, -1) if asked.get(key, -1) >= 0 else -1 for key in wanted], np.intp)


def _once(keys: list[str]) -> dict[str, int]:
    """Key -> row; -1 if it stands in several."""
    rows: dict[str, int] = {}
    for row, key in enumerate(keys):
        if key:
            rows[key] = -1 if key in rows else row
    return rows


def _not_there(other: Manifest, tried: dict[Way, npt.NDArray[np.intp]]) -> ManifestError:
    best = max(tried, key=lambda way: (tried[way] >= 0).sum())  # of equals the first
    absent = np.flatnonzero(tried[best] < 0)
    named = {"image_id": other.image_ids, "uri": other.uris}.get(best, other.uris)
    examples = ", ".join(shown(named[row]) for row in absent[:_SHOWN].tolist())
    counts = ", ".join(f"by {way} {(rows >= 0).sum()}" for way, rows in tried.items())
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
