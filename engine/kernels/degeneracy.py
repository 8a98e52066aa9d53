"""Degenerate features: constant dimensions, rows that hardly differ, and rows that are nearly the same."""

from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels.near_duplicates import similar_pairs
from engine.kernels.vectors import Vectors


def evenly_spaced(rows: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """Return at most `most` of the rows, evenly spaced in their order: row floor(i n / most) for each i."""
    if len(rows) <= most:
        return rows
    return rows[np.arange(most) * len(rows) // most]


def constant_dimensions(features: Any, rows: NDArray[np.intp], sample: NDArray[np.float64]) -> int:
    """Return the number of dimensions that have one value in all rows.

    Only those that are constant in a sample are read in full.

    Args:
        features: [N, d] of any float type, numpy.
        rows: positions, at least one, whose numbers are finite.
        sample: float64 [n, d] of some of these rows.
    """
    columns = np.flatnonzero((sample == sample[0]).all(axis=0))
    value = sample[0, columns]
    for _, block in Vectors(features, rows).blocks():
        if not len(columns):
            break
        same = (block[:, columns] == value).all(axis=0)
        columns, value = columns[same], value[same]
    return len(columns)


def relative_spread(sample: NDArray[np.float64]) -> float:
    """Return the root mean square distance of rows from their mean, over the root mean square length of rows.

    0 if all rows are equal, 1 if their mean is 0; NaN where all are 0.

    Args:
        sample: float64 [n, d], finite.
    """
    length = float(np.einsum("ij,ij->", sample, sample))
    centred = sample - sample.mean(axis=0)
    return float(np.sqrt(np.einsum("ij,ij->", centred, centred) / length)) if length > 0 else nan


def near_pairs(features: Any, rows: NDArray[np.intp], cosine: float, limit: int) -> NDArray[np.int64]:
    """Return pairs of rows that are nearly the same apart from their common mean, int64 [p, 2].

    The cosine is that of rows less the mean of all rows: without the mean, which features of one kind of
    image share, even images that have nothing in common have cosines near 1.

    Args:
        features: [N, d] of any float type, numpy; n d numbers are copied as float32.
        rows: [n] positions, whose numbers are finite.
        cosine: of a pair at least, in (0, 1].
        limit: most pairs that are returned, the most similar ones.
    """
    x = np.asarray(features[rows], np.float64)
    x -= x.mean(axis=0)
    pairs = similar_pairs(Vectors(x.astype(np.float32)), cosine, limit=limit)
    return np.stack([rows[pairs.first], rows[pairs.second]], axis=1).astype(np.int64)
