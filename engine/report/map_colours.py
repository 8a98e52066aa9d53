"""Colours of occlusion maps, and their overlay on the image.

Colours are viridis, which is perceptually uniform and safe for red-green colour blindness. In the overlay
they are more transparent the lower a value is, so that the anatomy stays visible.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Opacity of the overlay's colour at the upper end of the scale; it falls linearly to 0 at the lower end.
ALPHA = 0.6
#: Share of the pixels, those with the highest values, that the outline encloses.
OUTLINED = 0.1


@dataclass(frozen=True)
class Scale:
    """The values at the ends of the colour bar."""

    low: float
    high: float

    @classmethod
    def of(cls, *maps: NDArray[np.float64]) -> "Scale":
        """Make the scale from the smallest value of all maps to the largest."""
        return cls(min(float(m.min()) for m in maps), max(float(m.max()) for m in maps))

    def union(self, other: "Scale") -> "Scale":
        """Return the smallest scale that includes both."""
        return Scale(min(self.low, other.low), max(self.high, other.high))

    def share(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the positions of values on the scale, 0 to 1; all 0 if the scale has a single value."""
        if self.high <= self.low:
            return np.zeros_like(values)
        return ((values - self.low) / (self.high - self.low)).clip(0, 1)


def colours(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map shares [...] of 0 to 1 to matplotlib's `viridis`: RGB float64 [..., 3] of 0 to 255."""
    from matplotlib import colormaps

    rgb: NDArray[np.float64] = np.asarray(colormaps["viridis"](shares))[..., :3] * 255
    return rgb


def blended(pixels: NDArray[np.uint8], shares: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Blend colours of shares [M, M] into pixels uint8 [M, M, 3]; returns uint8 [M, M, 3]."""
    alpha = ALPHA * shares[..., None]
    mixed = (1 - alpha) * pixels.astype(np.float64) + alpha * colours(shares)
    return np.rint(mixed).clip(0, 255).astype(np.uint8)


def outline(map: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return the pixels just inside the border of the area of highest values; none in a constant map."""
    highest = map > np.quantile(map, 1 - OUTLINED)
    return highest & ~eroded(highest)


def eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels that are set and whose four neighbours are; pixels beyond the border count as set."""
    padded = np.pad(mask, 1, constant_values=True)
    sides = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.asarray(np.logical_and.reduce((mask, *sides)))
