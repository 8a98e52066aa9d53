"""From embeddings to the bytes of a chunk's three files: judge each row, cast, pad, add the checksum."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.layout import ARRAYS, CHECKSUM, FeatureLayout
from stores.schema import STATUS_FAILED, STATUS_OK, STATUS_PENDING, ChunkResult, Failure

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
    rows hold NaN, as do the padding rows of the last chunk.

    Raises:
        ValueError: shapes, dtypes or failures that contradict each other or the layout.
    """
    start, stop = layout.grid.bounds(result.index)
    _check(result, start, stop, layout.dim)
    arrays = {name: _blank(layout, name) for name in ARRAYS}
    values = _values(arrays["embedding"], np.dtype(layout.key.dtype)).reshape(-1, layout.dim)
    norms, status = _values(arrays["norm"], np.dtype("<f4")), _values(arrays["status"], np.dtype("u1"))
    reasons = {failure.row: failure for failure in result.failures}
    for first in range(0, stop - start, _BLOCK_ROWS):
        rows = slice(first, min(first + _BLOCK_ROWS, stop - start))
        verdict = _cast(result.embedding[rows], result.ok[rows], values[rows], norms[rows])
        status[rows] = np.where(verdict == "", STATUS_OK, STATUS_FAILED)
        for at in np.flatnonzero((verdict != "") & result.ok[rows]).tolist():
            row = start + first + at
            reasons[row] = Failure(row, str(verdict[at]), _EXPLAINED[str(verdict[at])])
    files = {layout.chunk_file(name, result.index): _seal(arrays[name]) for name in ARRAYS}
    return EncodedChunk(result.index, files, tuple(reasons[row] for row in sorted(reasons)))


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
) -> npt.NDArray[np.str_]:
    """Fill `values` and `norms` from `source`; return "" or the failure code for each row."""
    with np.errstate(all="ignore"):
        exact = source.astype(np.float64)
        norm = np.sqrt(np.square(exact).sum(axis=1))
        values[:] = source
        norms[:] = norm
        lost = np.sqrt(np.square(exact - values.astype(np.float64)).sum(axis=1))
        verdict = np.full(len(source), "", dtype="U16")
        # One dimension is always constant: there, only zero says nothing.
        same = (source == source[:, :1]).all(axis=1) & ((source.shape[1] > 1) | (norm == 0))
        verdict[same] = "degenerate"
        verdict[lost > ROUNDING_LIMIT * norm] = "underflow"
        verdict[~(np.isfinite(values).all(axis=1) & np.isfinite(norms))] = "overflow"
        verdict[~np.isfinite(source).all(axis=1)] = "non_finite"
    verdict[~ok] = "given"
    values[verdict != ""] = np.nan
    norms[verdict != ""] = np.nan
    return verdict


def _blank(layout: FeatureLayout, name: str) -> Bytes:
    """A whole chunk file's bytes, holding the fill value and a checksum yet to come."""
    raw = np.empty(layout.payload(name) + CHECKSUM, dtype=np.uint8)
    if name == "status":
        raw[:] = STATUS_PENDING
    else:
        _values(raw, np.dtype(layout.key.dtype if name == "embedding" else "<f4"))[:] = np.nan
    return raw


def _values(raw: Bytes, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    return raw[:-CHECKSUM].view(dtype.newbyteorder("<"))


def _seal(raw: Bytes) -> memoryview:
    from google_crc32c import value

    raw[-CHECKSUM:] = np.frombuffer(value(raw[:-CHECKSUM]).to_bytes(CHECKSUM, "little"), np.uint8)
    return raw.data.toreadonly()
