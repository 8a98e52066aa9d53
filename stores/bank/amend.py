"""Second attempts at rows without an embedding, in a feature that is finished otherwise.

Rows with an embedding stay as they are, bit for bit.
"""

from collections.abc import Collection

import numpy as np

from stores.backends import files, locks
from stores.bank import exchange, integrity
from stores.bank.commit import Committer, marker_document
from stores.bank.encode import Bytes, EncodedChunk, encode
from stores.bank.encode import amend as merged
from stores.bank.keys import ChunkResult, Failure
from stores.bank.layout import FeatureLayout
from stores.bank.markers import Marker, committed_chunks, missing_chunks, read_marker
from stores.bank.seal import seal_path
from stores.errors import BankError


def failures_of(layout: FeatureLayout) -> dict[int, list[Failure]]:
    """List the rows without embedding of each committed chunk that has any: chunk -> failures, by row.

    Raises:
        BankError: a marker is damaged.
    """
    present = committed_chunks(layout)
    bodies = files.each(layout.root, lambda index: read_marker(layout.root / layout.marker(index)), present)
    return {
        index: [Failure(**failure) for failure in body["failures"]]
        for index, body in zip(present, bodies, strict=True)
        if body["failures"]
    }


def uncommitted_rows(layout: FeatureLayout) -> list[int]:
    """List the rows of the chunks without marker."""
    return [row for index in missing_chunks(layout) for row in range(*layout.grid.bounds(index))]


def amend_chunk(layout: FeatureLayout, result: ChunkResult, rows: Collection[int]) -> bool:
    """Commit the results of a new attempt for rows of a chunk that had no embedding.

    Args:
        result: of the whole chunk; its values for rows that are not to be tried again are ignored.
        rows: of the bank, to be tried again; those of them that have an embedding are left alone.

    Returns:
        Whether anything changed. Then the feature is not sealed any more.

    Raises:
        BankError: the chunk is damaged. MachineFault: disk full or I/O error; run again.
    """
    with locks.held(layout.side / "commit.lock"):
        marker = read_marker(layout.root / layout.marker(result.index))
        old = [Failure(**failure) for failure in marker["failures"]]
        retried = tuple(failure for failure in old if failure.row in rows)
        if not retried:
            return False
        chunk = merged(_files(layout, result.index, marker), retried, encode(result, layout), layout)
        left = [failure for failure in old if failure.row not in rows]
        failures = tuple(sorted([*left, *chunk.failures], key=lambda failure: failure.row))
        chunk = EncodedChunk(chunk.index, chunk.files, failures)
        body = marker_document(layout, chunk)
        if body == marker:
            return False
        files.remove(seal_path(layout.root, layout.name))
        exchange.set_aside(layout, result.index)
        Committer(layout).commit_held(chunk)
        exchange.drop(layout, result.index)
        return True


def _files(layout: FeatureLayout, index: int, marker: Marker) -> dict[str, Bytes]:
    """Read the chunk's files by array, checked against their marker."""
    arrays = {}
    for array in layout.arrays:
        relative = layout.chunk_file(array, index)
        data = files.read(layout.root / relative)
        if integrity.promise_of(data) != marker["files"].get(relative):
            raise BankError(
                f"{integrity.describe(relative)} of feature {layout.name} is damaged: {relative}",
                "Rows are tried again only in chunks that are what they should be",
                f"run `embank bank repair {layout.root}`",
            )
        arrays[array] = np.frombuffer(data, np.uint8)
    return arrays
