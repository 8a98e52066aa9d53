"""The order in which a path of regularisation values is solved, and where each value starts.

Solutions change smoothly with log C. So every fourth value starts from nothing. What lies halfway starts at
the cubic through four solved neighbours, and then the rest, where solved values are so close that little is
left to do. The largest quarter of the values continue the path one after another: classes come apart there,
and a longer step would be lost.
"""

import numpy as np
from numpy.typing import NDArray

#: Below so many values the path is not worth its order.
_FEW = 6
#: One in so many values, the largest, is solved after its neighbour: from nothing they would take many times
#: the iterations of all others.
_LARGEST = 4
#: A cubic whose weights sum to more than this in magnitude would blow up the neighbours' errors.
_TAME = 2.0


def waves(count: int) -> list[NDArray[np.intp]]:
    """Positions of `count` values, in groups that start from those before."""
    every = np.arange(count)
    if count < _FEW:
        return [every]
    low = every[: count - count // _LARGEST : 4]
    high = every[low[-1] + 1 :]
    second = np.setdiff1d(every[: low[-1] : 2], low)
    third = np.setdiff1d(every[: low[-1]], np.union1d(low, second))
    return [w for w in (low, *high[:, None], second, third) if len(w)]


def starts(positions: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The order of the values, and what they start from.

    Args:
        positions: ascending, log C [R].

    Returns:
        Order [R], and weights [R, R]: value r starts at the sum of weights[r, s] times the solution of s, and
        every such s comes before it in the order; where the row is zero, from nothing.
    """
    found = np.zeros((len(positions), len(positions)))
    first, *others = waves(len(positions))
    known = first
    for wave in others:
        found[np.ix_(wave, known)] = weights(positions[known], positions[wave])
        known = np.union1d(known, wave)
    return np.concatenate([first, *others]), found


def weights(known: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lagrange weights [wanted, known] of piecewise cubic interpolation.

    Args:
        known: ascending positions (log C) of solutions, at least two.
        wanted: positions.

    Where the spacing is too uneven for a cubic, and outside the known positions, it is linear.
    """
    found = np.zeros((len(wanted), len(known)))
    for row, x in zip(found, wanted, strict=True):
        right = int(np.clip(np.searchsorted(known, x), 1, len(known) - 1))
        for reach in (2, 1) if known[0] <= x <= known[-1] else (1,):
            start = int(np.clip(right - reach, 0, max(len(known) - 2 * reach, 0)))
            at = np.arange(start, min(start + 2 * reach, len(known)))
            basis = _lagrange(known[at], x)
            if np.abs(basis).sum() <= _TAME:
                break
        row[at] = basis
    return found


def _lagrange(nodes: NDArray[np.float64], x: float) -> NDArray[np.float64]:
    apart = nodes[:, None] - nodes[None, :]
    np.fill_diagonal(apart, 1.0)
    towards = np.broadcast_to(x - nodes, apart.shape).copy()
    np.fill_diagonal(towards, 1.0)
    found: NDArray[np.float64] = np.prod(towards / apart, axis=1)
    return found
