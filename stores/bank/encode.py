"""Encoding of embeddings as a chunk's files: judge each row, cast, pad, add the checksum."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.bank.keys import (
    CONTENT_BYTES,
    STATUS_FAILED,
    STATUS_OK,
    STATUS_PENDING,
    ChunkResult,
    Failure,
)
from stores.bank.layout import CHECKSUM, FeatureLayout

#: Largest loss by rounding, relative to the row's L2 norm, that still counts as the same embedding.
ROUNDING_LIMIT = 1e-2
_BLOCK_ROWS = 512

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class EncodedChunk:
    """A chunk as it goes to disk.

    Attributes:
        index: of the chunk.
        files: relative path -> bytes, in the order of writing.
        failures: by row.
    """

    index: int
    files: dict[str, memoryview]
    failures: tuple[Failure, ...]


def encode(result: ChunkResult, layout: FeatureLayout) -> EncodedChunk:
    """Encode one chunk.

    A row becomes failed, whatever `result.ok` says, if it is not finite (`non_finite`), if rounding makes it
    infinite or its norm exceeds float32 (`overflow`), if rounding loses more than `ROUNDING_LIMIT`
    (`underflow`), or if it is all zero or one value in all of several dimensions (`degenerate`). Failed
    rows hold NaN, as do the padding rows of the last chunk. A failure that says so leaves its row pending,
    where the layout knows of that.

    Raises:
        ValueError: shapes, dtypes or failures that contradict each other or the layout.
    """
    start, stop = layout.grid.bounds(result.index)
    _check(result, start, stop, layout.dim)
    arrays = {name: _blank(layout, name) for name in layout.arrays}
    views = _views(arrays, layout)
    values, norms, status = views["embedding"], views["norm"], views["status"]
    reasons = {failure.row: failure for failure in result.failures}
    for first in range(0, stop - start, _BLOCK_ROWS):
        rows = slice(first, min(first + _BLOCK_ROWS, stop - start))
        # Features of the first layout accepted constant rows, and a repair must reproduce them.
        strict = layout.has_contents
        verdict = _cast(result.embedding[rows], result.ok[rows], values[rows], norms[rows], strict)
        status[rows] = np.where(verdict == "", STATUS_OK, STATUS_FAILED)
        for position in np.flatnonzero((verdict != "") & result.ok[rows]).tolist():
            row = start + first + position
            reasons[row] = Failure(row, str(verdict[position]), _EXPLAINED[str(verdict[position])])
    if "content" in views:
        if result.content is not None:
            views["content"][: stop - start] = result.content
        status[[row - start for row, failure in reasons.items() if failure.pending]] = STATUS_PENDING
    else:
        reasons = {row: replace(failure, pending=False) for row, failure in reasons.items()}
    return _finished(arrays, layout, result.index, tuple(reasons[row] for row in sorted(reasons)))


def amend(
    old: Mapping[str, Bytes], failures: tuple[Failure, ...], new: EncodedChunk, layout: FeatureLayout
) -> EncodedChunk:
    """Encode a chunk in which rows without embedding take what a new attempt gave; ok rows stay, bit for bit.

    Args:
        old: the arrays' chunk files as they are, checksum included.
        failures: of the chunk as it is.
        new: the new attempt at the whole chunk; only its rows that `failures` names are taken.
    """
    start = layout.grid.bounds(new.index)[0]
    rows = [failure.row - start for failure in failures]
    arrays = {name: old[name].copy() for name in layout.arrays}
    fresh = {
        name: np.frombuffer(new.files[layout.chunk_file(name, new.index)], np.uint8) for name in layout.arrays
    }
    target, source = _views(arrays, layout), _views(fresh, layout)
    for name, view in target.items():
        view[rows] = source[name][rows]
    taken = {failure.row for failure in failures}
    return _finished(arrays, layout, new.index, tuple(f for f in new.failures if f.row in taken))


def _views(arrays: Mapping[str, Bytes], layout: FeatureLayout) -> dict[str, npt.NDArray[Any]]:
    """View the samples of each array of a chunk, [chunk_rows] or [chunk_rows, columns], without checksum."""
    views = {
        "embedding": (layout.key.dtype, (-1, layout.dim)),
        "norm": ("<f4", (-1,)),
        "status": ("u1", (-1,)),
        "content": ("u1", (-1, CONTENT_BYTES)),
    }
    return {
        name: _values(raw, np.dtype(views[name][0])).reshape(views[name][1]) for name, raw in arrays.items()
    }


def _finished(
    arrays: Mapping[str, Bytes], layout: FeatureLayout, index: int, failures: tuple[Failure, ...]
) -> EncodedChunk:
    files = {layout.chunk_file(name, index): _seal(arrays[name]) for name in layout.arrays}
    return EncodedChunk(index, files, failures)


_EXPLAINED = {
    "degenerate": "the embedding is one value in all dimensions, so it says nothing about the image",
    "non_finite": "the embedding holds NaN or infinity",
    "overflow": "the embedding exceeds the stored precision's range",
    "underflow": f"rounding to the stored precision loses more than {ROUNDING_LIMIT:g} of the embedding",
}


def _check(result: ChunkResult, start: int, stop: int, dim: int) -> None:
    rows = stop - start
    if result.embedding.shape != (rows, dim) or result.embedding.dtype != np.float32:
        raise ValueError(
            f"chunk {result.index} needs float32 [{rows}, {dim}], "
            f"not {result.embedding.dtype} {list(result.embedding.shape)}"
        )
    if result.ok.shape != (rows,) or result.ok.dtype != np.bool_:
        raise ValueError(f"chunk {result.index} needs ok as bool [{rows}]")
    if result.content is not None and (
        result.content.shape != (rows, CONTENT_BYTES) or result.content.dtype != np.uint8
    ):
        raise ValueError(f"chunk {result.index} needs content as uint8 [{rows}, {CONTENT_BYTES}]")
    failed = [failure.row for failure in result.failures]
    if sorted(failed) != (start + np.flatnonzero(~result.ok)).tolist():
        raise ValueError(
            f"chunk {result.index}: every row that is not ok needs exactly one failure, and no other does"
        )


def _cast(
    source: npt.NDArray[np.float32],
    ok: npt.NDArray[np.bool_],
    values: npt.NDArray[Any],
    norms: npt.NDArray[Any],
    strict: bool,
) -> npt.NDArray[np.str_]:
    """Fill `values` and `norms` from `source`; return "" or the failure code for each row.

    Args:
        strict: whether a row that is one value in all dimensions is `degenerate`.
    """
    with np.errstate(all="ignore"):
        exact = source.astype(np.float64)
        norm = np.sqrt(np.square(exact).sum(axis=1))
        values[:] = source
        norms[:] = norm
        lost = np.sqrt(np.square(exact - values.astype(np.float64)).sum(axis=1))
        verdict = np.full(len(source), "", dtype="U16")
        # A single dimension is always constant: there, only zero carries no information.
        same = (source == source[:, :1]).all(axis=1) & ((source.shape[1] > 1) | (norm == 0))
        verdict[same & strict] = "degenerate"
        verdict[lost > ROUNDING_LIMIT * norm] = "underflow"
        verdict[~(np.isfinite(values).all(axis=1) & np.isfinite(norms))] = "overflow"
        verdict[~np.isfinite(source).all(axis=1)] = "non_finite"
    verdict[~ok] = "given"
    values[verdict != ""] = np.nan
    norms[verdict != ""] = np.nan
    return verdict


def _blank(layout: FeatureLayout, name: str) -> Bytes:
    """Return the bytes of a chunk file with the fill value and room for the checksum."""
    raw = np.empty(layout.payload(name) + CHECKSUM, dtype=np.uint8)
    if name in ("status", "content"):
        raw[:] = STATUS_PENDING  # 0, which is also the content of what was not read
    else:
        _values(raw, np.dtype(layout.key.dtype if name == "embedding" else "<f4"))[:] = np.nan
    return raw


def _values(raw: Bytes, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    return raw[:-CHECKSUM].view(dtype.newbyteorder("<"))


def _seal(raw: Bytes) -> memoryview:
    from google_crc32c import value

    raw[-CHECKSUM:] = np.frombuffer(value(raw[:-CHECKSUM]).to_bytes(CHECKSUM, "little"), np.uint8)
    return raw.data.toreadonly()
