"""Difference between an occlusion map at a stride above 1 and the exact one, on a sample of pixels.

A pixel of the exact map is the mean over all squares that cover it. Pixels beside each other share most of
these squares, so the sample is a few small windows, one somewhere in each quarter of the map.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.evals.saliency.errors import StrideError
from engine.evals.saliency.occluder import Block, Occluder
from engine.kernels.episodes import Stream

#: Windows along each axis of a map of so many places or more; a smaller map has a single window of so many
#: pixels across, so that the sample takes no longer than the map.
_WINDOWS, _PLACES, _FEW = 2, 400, 3

Window = tuple[slice, slice]


def stride_error(
    occluder: Occluder, pixels: NDArray[np.uint8], map: NDArray[np.float64], stream: Stream
) -> StrideError:
    """Compare a map with the exact one inside a few windows.

    Args:
        occluder: that made the map.
        pixels: uint8 [side, side, 3].
        map: float64 [inner, inner], at the occluder's stride.
        stream: says where the windows are.
    """
    size = occluder.squares.size
    sample = windows(map.shape[0], occluder.squares.stride, occluder.squares.count, stream)
    needed = [Block(*(range(side.start, side.stop + size - 1) for side in window)) for window in sample]
    scores = occluder.every_place(pixels, needed)
    exact = np.concatenate([_mean_of_squares(part, size).ravel() for part in scores])
    coarse = np.concatenate([map[window].ravel() for window in sample])
    error, level = np.abs(exact - coarse), float(map.mean())
    return StrideError(
        len(exact),
        float(error.mean()),
        float(error.max()),
        float(exact.mean()),
        float(((exact > level) != (coarse > level)).mean()),
    )


def windows(side: int, stride: int, places: int, stream: Stream) -> Sequence[Window]:
    """Choose squares of pixels of a map, a stride wide, so that each sees a period of the places' pattern.

    Args:
        side: of the map; places: of the square, in all.
    """
    many = places >= _PLACES and side >= _WINDOWS * stride
    parts = _WINDOWS if many else 1
    room, width = side // parts, min(stride, side) if many else min(_FEW, side)
    draws = stream.uniform(2 * parts * parts).reshape(parts, parts, 2)
    sample = []
    for row in range(parts):
        for column in range(parts):
            down, across = (draws[row, column] * (room - width + 1)).astype(int).tolist()
            top, left = row * room + down, column * room + across
            sample.append((slice(top, top + width), slice(left, left + width)))
    return sample


def _mean_of_squares(scores: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Average over the size x size squares that cover each pixel.

    The result is float64 and smaller by size - 1 on each axis.
    """
    covering = np.lib.stride_tricks.sliding_window_view(scores, (size, size))
    return np.asarray(covering.mean(axis=(2, 3)))
