"""Rows by code: of a class, or of a group (patient). Codes may be any whole numbers, however large."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]

#: Tables have a place for every code up to so many times the number of rows; larger codes are ranked first.
_SPARE = 4


def distinct(codes: NDArray[np.integer[Any]]) -> NDArray[Any]:
    """Return the distinct codes, sorted, in the type of the codes; any whole numbers."""
    if len(codes) and codes.min() >= 0 and codes.max() < _SPARE * len(codes):
        return np.flatnonzero(np.bincount(codes)).astype(codes.dtype)
    # Without counts np.unique imports numpy.ma, which takes longer than many an evaluation.
    values: NDArray[Any] = np.unique(codes, return_counts=True)[0]
    return values


def fill_singletons(groups: NDArray[np.integer[Any]]) -> Rows:
    """Return codes int64 [N] in which every row with a negative code is a group of its own.

    The codes of groups keep their order and are below 4 N, so that a table may have a place for each of them;
    those of single rows follow.
    """
    codes = np.asarray(groups).astype(np.int64)
    if int(codes.max(initial=-1)) >= _SPARE * len(codes):
        known = codes >= 0
        codes[known] = np.unique(codes[known], return_inverse=True)[1]
    unknown = np.flatnonzero(codes < 0)
    codes[unknown] = int(codes.max(initial=-1)) + 1 + np.arange(len(unknown))
    return codes


def in_order(codes: NDArray[np.integer[Any]]) -> Rows:
    """Return the positions of [N] codes, none negative, by code and then by position.

    Equals `np.argsort(codes, kind="stable")`, which takes ten times as long for a million codes.
    """
    keys, bits = _sorted_keys(np.array(codes, np.int64), np.arange(len(codes)))
    keys &= (1 << bits) - 1
    return keys


def rows_by_code(codes: NDArray[np.integer[Any]], rows: NDArray[np.integer[Any]]) -> dict[int, Rows]:
    """Return the rows of each code, ascending; the codes are ascending, too.

    Args:
        codes: [N], not negative at `rows`.
        rows: which of the N, different ones.
    """
    if not len(rows):
        return {}
    keys, bits = _sorted_keys(codes[rows].astype(np.int64, copy=False), rows)
    ends = np.searchsorted(keys, np.arange(1, int(keys[-1] >> bits) + 2) << bits)
    keys &= (1 << bits) - 1
    parts = np.split(keys, ends[np.diff(ends, prepend=0) > 0][:-1])
    return {int(codes[part[0]]): part for part in parts}


def _sorted_keys(keys: Rows, rows: NDArray[np.integer[Any]]) -> tuple[Rows, int]:
    """Turn codes into code x 2^bits + row, sorted, in their place; also return the number of bits.

    numpy sorts whole numbers by vector instructions, but not their positions. New memory costs more than the
    sums: hence in place.
    """
    bits = int(rows.max(initial=0)).bit_length()
    if int(keys.max(initial=0)) >= _SPARE * len(keys):
        keys = np.unique(keys, return_inverse=True)[1].astype(np.int64)
    keys <<= bits
    keys |= rows
    keys.sort()
    return keys, bits
