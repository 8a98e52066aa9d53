"""Occlusion maps: a square slid over an image, its scores brought back onto the pixels.

Zeiler & Fergus 2014 (arXiv:1311.2901); the score, the accumulation and attentive diffusion as in Anton et
al., J. Imaging 2022, 8, 320 (doi:10.3390/jimaging8120320).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.errors import Refused

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Squares:
    """Where the occluding square stands.

    Its upper left corner takes every `stride`-th place at which it lies wholly inside, from 0, along both
    axes.

    Attributes:
        side: of the image that is occluded, pixels.
        size: of the square, pixels.
        stride: pixels between two places; at most `size`, so that every kept pixel is covered.

    Raises:
        Refused: numbers that leave no map, or pixels of it uncovered.
    """

    side: int = 242
    size: int = 10
    stride: int = 1

    def __post_init__(self) -> None:
        if self.size < 1 or self.inner < 1:
            raise Refused(
                f"A square of {self.size} on an image of {self.side} pixels",
                "It is at least 1 pixel, and the map, cut by size - 1 on each side, has at least 1",
                "choose another --size",
            )
        if not 1 <= self.stride <= self.size:
            raise Refused(
                f"stride {self.stride} with a square of {self.size} pixels",
                f"It is from 1 to {self.size}: between further squares pixels are never covered",
                "choose another --stride",
            )

    @property
    def per_axis(self) -> int:
        """Places along one axis."""
        return (self.side - self.size) // self.stride + 1

    @property
    def count(self) -> int:
        """Places in all."""
        return self.per_axis**2

    @property
    def inner(self) -> int:
        """Side of the map: the image without `size - 1` pixels on each side."""
        return self.side - 2 * (self.size - 1)

    def start(self, index: int) -> int:
        """First pixel of a place along one axis."""
        return index * self.stride


def accumulate(scores: ArrayLike, squares: Squares) -> NDArray[np.float64]:
    """The occlusion map: for each pixel, the mean score of the squares that cover it.

    At stride 1 every kept pixel is covered by size^2 squares, so this is the sum divided by size^2; at other
    strides it is the sum divided by how many squares cover that pixel.

    Args:
        scores: [P, P], by row and column of the square's place.
        squares: P is its `per_axis`.

    Returns:
        float64 [inner, inner].

    Raises:
        ValueError: another shape.
    """
    given = np.asarray(scores, dtype=np.float64)
    if given.shape != (squares.per_axis,) * 2:
        raise ValueError(f"scores are {given.shape}, not {squares.per_axis} x {squares.per_axis}")
    sums = _spread(_spread(given, squares).T, squares).T
    counts = _spread(np.ones(squares.per_axis), squares)
    return sums / np.outer(counts, counts)


def _spread(values: NDArray[np.float64], squares: Squares) -> NDArray[np.float64]:
    """Add each place's value to the pixels it covers, along the first axis; kept pixels only.

    A box filter as `size` shifted sums: unlike differences of running sums it loses no digits.
    """
    found = np.zeros((squares.side, *values.shape[1:]))
    last = squares.start(squares.per_axis - 1) + 1
    for offset in range(squares.size):
        found[offset : offset + last : squares.stride] += values
    return found[squares.size - 1 : squares.side - squares.size + 1]


def attentive_diffusion(map: ArrayLike) -> float:
    """Share of pixels strictly above the map's mean; NaN where the map has a number that is not finite.

    Args:
        map: [H, W].
    """
    values = np.asarray(map, dtype=np.float64)
    if not values.size or not np.isfinite(values).all():
        return float("nan")
    # The mean of equal numbers may round to just below them; that of zeros is zero.
    above = values - values.min()
    return float((above > above.mean()).mean())


def occlude(
    image: "torch.Tensor", rows: range, columns: range, size: int, fill: "torch.Tensor"
) -> "torch.Tensor":
    """Copies of an image, or of a part of it, each with one square filled; made on its device.

    Args:
        image: float [1, C, H, W].
        rows, columns: first pixels of the squares; one copy for each pair, columns fastest.
        size: of the square, pixels.
        fill: float [C], on the same device.

    Returns:
        [len(rows) * len(columns), C, H, W].
    """
    import torch

    down = _inside(image.shape[2], rows, size, image.device)
    across = _inside(image.shape[3], columns, size, image.device)
    square = (down[:, None, :, None] & across[None, :, None, :]).flatten(0, 1)
    return torch.where(square[:, None], fill.to(image.dtype)[:, None, None], image)


def _inside(length: int, starts: range, size: int, device: "torch.device") -> "torch.Tensor":
    """bool [starts, length]: pixels that a square covers along one axis."""
    import torch

    first = torch.arange(starts.start, starts.stop, starts.step, device=device)[:, None]
    pixel = torch.arange(length, device=device)
    return (pixel >= first) & (pixel < first + size)


def relative_change(features: "torch.Tensor", feature: "torch.Tensor") -> "torch.Tensor":
    """||f_occ - f|| / ||f||, the study's root relative squared error.

    Args:
        features: [B, d] of occluded images; feature: [d] of the whole one.

    Returns:
        float64 [B]; NaN where f is zero.
    """
    whole = feature.double()
    change: torch.Tensor = (features.double() - whole).norm(dim=1) / whole.norm()
    # x / 0 would be infinite; without a feature there is nothing to compare with.
    return change.where(whole.norm() > 0, float("nan"))
