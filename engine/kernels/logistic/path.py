"""The order in which a path of regularisation values is solved, and the starting point of each value.

Solutions change smoothly with log C. Therefore only every fourth value is solved from a cold start. The
values halfway between them start on the cubic through four solved neighbours, and then the remaining values
do, whose solved neighbours are so close that little is left to be done. The largest quarter of the values is
solved one after another: classes become separable there, and extrapolating over longer steps fails.
"""

import numpy as np
from numpy.typing import NDArray

#: Paths with fewer values are solved from cold starts.
_FEW = 6
#: One in this many values, the largest ones, is solved after its neighbour: from a cold start they would take
#: many times the iterations of all others.
_LARGEST = 4
#: Weights of a cubic may sum to at most this in magnitude: they amplify the neighbours' errors.
_MAX_AMPLIFICATION = 2.0


def waves(count: int) -> list[NDArray[np.intp]]:
    """Return the positions of `count` values in groups; each group starts from the groups before it."""
    positions = np.arange(count)
    if count < _FEW:
        return [positions]
    low = positions[: count - count // _LARGEST : 4]
    high = positions[low[-1] + 1 :]
    second = np.setdiff1d(positions[: low[-1] : 2], low)
    third = np.setdiff1d(positions[: low[-1]], np.union1d(low, second))
    return [w for w in (low, *high[:, None], second, third) if len(w)]


def starts(positions: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the order of the values and the weights of their starting points.

    Args:
        positions: ascending, log C [R].

    Returns:
        Order [R], and weights [R, R]: value r starts at the sum over s of weights[r, s] times the solution of
        s, where every such s precedes it in the order; a zero row means a cold start.
    """
    start_weights = np.zeros((len(positions), len(positions)))
    first, *later_waves = waves(len(positions))
    known = first
    for wave in later_waves:
        start_weights[np.ix_(wave, known)] = weights(positions[known], positions[wave])
        known = np.union1d(known, wave)
    return np.concatenate([first, *later_waves]), start_weights


def weights(known: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Lagrange weights [wanted, known] of piecewise cubic interpolation.

    Args:
        known: ascending positions (log C) of solutions, at least two.
        wanted: positions (log C) to interpolate at.

        Interpolation is linear outside the known positions and where their spacing is too uneven for a cubic.
    """
    result = np.zeros((len(wanted), len(known)))
    for row, x in zip(result, wanted, strict=True):
        right = int(np.clip(np.searchsorted(known, x), 1, len(known) - 1))
        for half_width in (2, 1) if known[0] <= x <= known[-1] else (1,):
            start = int(np.clip(right - half_width, 0, max(len(known) - 2 * half_width, 0)))
            nodes = np.arange(start, min(start + 2 * half_width, len(known)))
            basis = _lagrange(known[nodes], x)
            if np.abs(basis).sum() <= _MAX_AMPLIFICATION:
                break
        row[nodes] = basis
    return result


def _lagrange(nodes: NDArray[np.float64], x: float) -> NDArray[np.float64]:
    node_distances = nodes[:, None] - nodes[None, :]
    np.fill_diagonal(node_distances, 1.0)
    distances = np.broadcast_to(x - nodes, node_distances.shape).copy()
    np.fill_diagonal(distances, 1.0)
    basis: NDArray[np.float64] = np.prod(distances / node_distances, axis=1)
    return basis
