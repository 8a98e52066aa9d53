"""Intervals of ranks from tests of all pairs.

Mogstad, Romano, Shaikh, Wilhelm, Review of Economic Studies 91 (2024) 476, doi 10.1093/restud/rdad006: a
model's rank is at least one more than the models that are better beyond doubt, and at most the number of
models less those that are worse beyond doubt. With p values adjusted for all pairs the intervals hold
together with at least the family's confidence. Percentiles of ranks in a bootstrap do not, because ranks of
equal models are not estimated consistently.
"""

import numpy as np
from numpy.typing import NDArray


def rank_intervals(
    differences: NDArray[np.float64], different: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the lowest and the highest rank of each of M models, int64 [M]; 1 is the best.

    Args:
        differences: float64 [M, M], how much better the row's model is than the column's.
        different: bool [M, M], symmetric: pairs that can be told apart.
    """
    better = different & (differences > 0)
    models = len(different)
    return 1 + better.sum(axis=0, dtype=np.int64), models - better.sum(axis=1, dtype=np.int64)
