"""Restoring a damaged chunk after it has been computed again.

A seal, or a marker, promises the bytes of a chunk. What was computed again is compared with that before
anything on disk changes: a chunk with another result (images changed or gone, other weights, another kind of
processor) is not put in place, and the files on disk stay as they are.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.backends import files, locks
from stores.bank import documents, integrity
from stores.bank.commit import Committer, marker_document, marker_of
from stores.bank.encode import EncodedChunk, encode
from stores.bank.keys import STATUS_OK, ChunkResult, Failure
from stores.bank.layout import CHECKSUM, SIDE, FeatureLayout
from stores.bank.markers import Marker, read_marker_if_there
from stores.bank.seal import read_seal, seal_file
from stores.errors import BankError
from stores.maintenance.cleanup import quarantine_chunk, quarantine_file

#: Codes of failures for which the file was never read.
_UNREAD = ("missing", "unreadable", "not_a_file", "outside_root", "empty")


@dataclass(frozen=True)
class Promise:
    """The recorded digests of a chunk.

    Attributes:
        index: of the chunk.
        files: relative path -> size and SHA-256 of each array's file.
        marker: the chunk's marker, if that is undamaged.
    """

    index: int
    files: integrity.Promises
    marker: Marker | None


def promise_of_chunk(layout: FeatureLayout, index: int) -> Promise | None:
    """Return what the seal, or else the marker, promises of a chunk; None if both are damaged."""
    marker = _marker(layout, index)
    try:
        sealed = read_seal(layout.root, layout.name)
    except BankError:
        sealed = None
    if sealed is not None:
        paths = [layout.chunk_file(array, index) for array in layout.arrays]
        promised = sealed[0].files.get(layout.marker(index))
        if marker is None or integrity.promise_of(documents.encode(marker)) != promised:
            marker = None
        return Promise(index, {path: sealed[0].files[path] for path in paths}, marker)
    return None if marker is None else Promise(index, marker["files"], marker)


def _marker(layout: FeatureLayout, index: int) -> Marker | None:
    path = layout.root / layout.marker(index)
    try:
        return read_marker_if_there(path)
    except BankError:
        return None


def heal_marker(layout: FeatureLayout, promise: Promise) -> bool:
    """Write a lost marker again, if nothing else of the chunk is damaged and it follows from the rest.

    It does where every row has an embedding: then it holds no words on failures, which nothing else knows.

    Returns:
        Whether the chunk is undamaged now.
    """
    if integrity.find_broken(layout.root, promise.files):
        return False
    if promise.marker is None:
        start, stop = layout.grid.bounds(promise.index)
        status = _samples(files.read(layout.root / layout.chunk_file("status", promise.index)), "u1")
        if not (status[: stop - start] == STATUS_OK).all():
            return False
    body = promise.marker or marker_of(layout, promise.index, promise.files, ())
    with locks.held(layout.side / "commit.lock"):
        _replace(layout, layout.marker(promise.index), documents.encode(body))
    return True


def _replace(layout: FeatureLayout, path: str, data: bytes | memoryview) -> list[str]:
    """Replace a file. Returns its path if another was moved to the quarantine."""
    present = files.digest(layout.root / path)
    if not integrity.difference(present, integrity.promise_of(data)):
        return []
    if present is not None:
        quarantine_file(layout.root, path, files.temporary(layout.root / SIDE / "quarantine", layout.name))
    files.make_directory((layout.root / path).parent)
    files.create(layout.root / path, data, files.temporary(layout.root / SIDE / "tmp", layout.name))
    files.sync_directory((layout.root / path).parent)
    return [] if present is None else [path]


def heal_chunk(
    layout: FeatureLayout, promise: Promise, result: ChunkResult, *, min_cosine: float | None = None
) -> list[str]:
    """Restore a damaged chunk from one that was computed again, if it is what was promised.

    Args:
        result: the whole chunk, computed again.
        min_cosine: None where arithmetic repeats to the bit; else how alike, at least, an embedding must be
            to what is left of the damaged one. Which rows have one, and from which images, must be equal.

    Returns:
        Relative paths of the files that were moved to the quarantine.

    Raises:
        BankError: it is not what was promised; nothing was changed.
        MachineFault: disk full or I/O error; run again.
    """
    chunk = encode(_as_recorded(layout, promise, result), layout)
    differing = [
        path for path, data in chunk.files.items() if integrity.promise_of(data) != promise.files[path]
    ]
    if not differing:
        return _write_damaged(layout, promise, chunk)
    exact = {layout.chunk_file(array, promise.index) for array in ("status", "content")}
    if min_cosine is None or exact & set(differing) or not _alike(layout, promise, chunk, min_cosine):
        raise _other(layout, promise, differing)
    return _exchange(layout, chunk)


def _as_recorded(layout: FeatureLayout, promise: Promise, result: ChunkResult) -> ChunkResult:
    """Return the result with the recorded failures: a file that was missing then may exist now."""
    if promise.marker is None:
        return result
    recorded = tuple(Failure(**failure) for failure in promise.marker["failures"])
    start = layout.grid.bounds(promise.index)[0]
    ok, failures = result.ok.copy(), {failure.row: failure for failure in result.failures}
    content = None if result.content is None else result.content.copy()
    for failure in recorded:
        ok[failure.row - start] = False
        failures[failure.row] = failure
        if content is not None and failure.code in _UNREAD:
            content[failure.row - start] = 0
    listed = tuple(failures[row] for row in sorted(failures))
    return replace(result, ok=ok, failures=listed, content=content)


def _write_damaged(layout: FeatureLayout, promise: Promise, chunk: EncodedChunk) -> list[str]:
    """Restore exactly the damaged files; the seal stays true."""
    contents: dict[str, bytes | memoryview] = dict(chunk.files)
    marker = promise.marker or marker_document(layout, chunk)
    contents[layout.marker(chunk.index)] = documents.encode(marker)
    with locks.held(layout.side / "commit.lock"):
        moved = [name for path, data in contents.items() for name in _replace(layout, path, data)]
        if promise.marker is None:
            _drop_other_seal(layout, chunk)
    return moved


def _drop_other_seal(layout: FeatureLayout, chunk: EncodedChunk) -> None:
    """Remove a seal that promises another marker: details of failures may be worded differently now."""
    sealed = read_seal(layout.root, layout.name)
    path = layout.marker(chunk.index)
    written = integrity.promise_of(documents.encode(marker_document(layout, chunk)))
    if sealed is not None and sealed[0].files[path] != written:
        target = files.temporary(layout.root / SIDE / "quarantine", layout.name)
        quarantine_file(layout.root, seal_file(layout.name), target)


def _exchange(layout: FeatureLayout, chunk: EncodedChunk) -> list[str]:
    """Put another chunk in place; the feature must be sealed again."""
    paths = [*chunk.files, layout.marker(chunk.index)]
    with locks.held(layout.side / "commit.lock"):
        moved = [path for path in paths if files.stat_if_there(layout.root / path) is not None]
        target = files.temporary(layout.root / SIDE / "quarantine", layout.name)
        quarantine_file(layout.root, seal_file(layout.name), target)
        quarantine_chunk(layout.root, layout.name, chunk.index)
        Committer(layout).commit_held(chunk)
    return moved


def _alike(layout: FeatureLayout, promise: Promise, chunk: EncodedChunk, min_cosine: float) -> bool:
    """Return whether recomputed embeddings agree with those of the damaged chunk where these are readable.

    Norms are compared where their file is undamaged. Of a damaged embedding file most bytes are still right,
    so that at most a tenth of its rows may differ more.
    """
    status = _samples(chunk.files[layout.chunk_file("status", chunk.index)], "u1")
    rows = np.flatnonzero(status == STATUS_OK)
    path = layout.chunk_file("norm", chunk.index)
    norm = files.read_if_there(layout.root / path)
    if norm is not None and integrity.promise_of(norm) == promise.files[path]:
        old, new = _samples(norm, "<f4")[rows], _samples(chunk.files[path], "<f4")[rows]
        if not np.allclose(new, old, rtol=float(np.sqrt(2 * (1 - min_cosine))), atol=0):
            return False
    path = layout.chunk_file("embedding", chunk.index)
    left = files.read_if_there(layout.root / path)
    if left is None or len(left) != chunk.files[path].nbytes:
        return True
    dtype = np.dtype(layout.key.dtype).newbyteorder("<").str
    old = _samples(left, dtype).reshape(-1, layout.dim)[rows].astype(np.float64)
    new = _samples(chunk.files[path], dtype).reshape(-1, layout.dim)[rows].astype(np.float64)
    with np.errstate(all="ignore"):
        cosine = (old * new).sum(axis=1) / (np.linalg.norm(old, axis=1) * np.linalg.norm(new, axis=1))
    return bool((~(cosine >= min_cosine)).sum() <= max(1, len(rows) // 10))


def _samples(data: bytes | memoryview, dtype: str) -> npt.NDArray[Any]:
    samples: npt.NDArray[Any] = np.frombuffer(data, np.uint8)[:-CHECKSUM].view(dtype)
    return samples


def _other(layout: FeatureLayout, promise: Promise, differing: list[str]) -> BankError:
    arrays = ", ".join(path.split("/")[1] for path in differing)
    return BankError(
        f"Chunk {promise.index} of {layout.name}, computed again, is not what it was ({arrays} differ)",
        "A repair puts back what was there, to the byte, and nothing else",
        "see that the images and the weights are those of the first run and that this is the same kind of "
        f"processor, then repair again; or give the feature up with "
        f"`embank bank rm {layout.root} {layout.name}`",
    )
