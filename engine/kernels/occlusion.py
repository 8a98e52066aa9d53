"""Occlusion maps: the scores of a square slid over an image, averaged for each pixel.

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
    """Positions of the occluding square.

    Along both axes, its upper left corner takes every `stride`-th position, from 0, at which the square lies
    inside the image.

    Attributes:
        side: of the occluded image, in pixels.
        size: side of the square, in pixels.
        stride: pixels between neighbouring positions; at most `size`, so that every pixel of the map is
            covered.

    Raises:
        Refused: the map would be empty, or some of its pixels never covered.
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
        """Number of positions along one axis."""
        return (self.side - self.size) // self.stride + 1

    @property
    def count(self) -> int:
        """Total number of positions."""
        return self.per_axis**2

    @property
    def inner(self) -> int:
        """Side of the map: the image without `size - 1` pixels on each side."""
        return self.side - 2 * (self.size - 1)

    def start(self, index: int) -> int:
        """Return the first pixel of a position along one axis."""
        return index * self.stride


def accumulate(scores: ArrayLike, squares: Squares) -> NDArray[np.float64]:
    """Return the occlusion map: for each pixel, the mean score of the squares that cover it.

    At stride 1 every pixel of the map is covered by size^2 squares; at other strides the number of squares
    differs between pixels.

    Args:
        scores: [P, P], by row and column of the square's position.
        squares: P is its `per_axis`.

    Returns:
        float64 [inner, inner].

    Raises:
        ValueError: the scores have another shape.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != (squares.per_axis,) * 2:
        raise ValueError(f"scores are {values.shape}, not {squares.per_axis} x {squares.per_axis}")
    sums = _spread(_spread(values, squares).T, squares).T
    counts = _spread(np.ones(squares.per_axis), squares)
    return sums / np.outer(counts, counts)


def _spread(values: NDArray[np.float64], squares: Squares) -> NDArray[np.float64]:
    """Add the value of each position to the pixels covered, along the first axis; pixels of the map only.

    A box filter by `size` shifted sums: unlike differences of running sums it loses no digits.
    """
    sums = np.zeros((squares.side, *values.shape[1:]))
    last = squares.start(squares.per_axis - 1) + 1
    for offset in range(squares.size):
        sums[offset : offset + last : squares.stride] += values
    return sums[squares.size - 1 : squares.side - squares.size + 1]


def attentive_diffusion(map: ArrayLike) -> float:
    """Return the share of pixels strictly above the map's mean; NaN if a value of the map is not finite.

    Args:
        map: [H, W].
    """
    values = np.asarray(map, dtype=np.float64)
    if not values.size or not np.isfinite(values).all():
        return float("nan")
    # The mean of equal numbers may round to just below them; the mean of zeros is exactly zero.
    above = values - values.min()
    return float((above > above.mean()).mean())


def occlude(
    image: "torch.Tensor", rows: range, columns: range, size: int, fill: "torch.Tensor"
) -> "torch.Tensor":
    """Return copies of an image, or of a part of it, each with one square filled, on the image's device.

    Args:
        image: float [1, C, H, W].
        rows, columns: first pixels of the squares; one copy for each pair, columns varying fastest.
        size: side of the square, in pixels.
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
    """Return the pixels that each square covers along one axis, bool [starts, length]."""
    import torch

    first = torch.arange(starts.start, starts.stop, starts.step, device=device)[:, None]
    pixel = torch.arange(length, device=device)
    return (pixel >= first) & (pixel < first + size)


def relative_change(features: "torch.Tensor", feature: "torch.Tensor") -> "torch.Tensor":
    """Return ||f_occ - f|| / ||f||, the study's root relative squared error.

    Args:
        features: [B, d], of occluded images.
        feature: [d], of the image without occlusion.

    Returns:
        float64 [B]; NaN if f is zero.
    """
    reference = feature.double()
    change: torch.Tensor = (features.double() - reference).norm(dim=1) / reference.norm()
    # Not infinity: relative to a zero feature the change is undefined.
    return change.where(reference.norm() > 0, float("nan"))
