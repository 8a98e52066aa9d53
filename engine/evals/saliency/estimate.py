"""Estimate of a run's time, from a few squares that are scored and timed first."""

import math
from dataclasses import asdict, dataclass

from stores.json_types import JsonObject

#: Seconds from which an estimate also names a larger stride.
LONG_S = 600.0


@dataclass(frozen=True)
class Estimate:
    """The work that is left, and the time it will take.

    Attributes:
        maps: that have to be computed; places: of the square, over all of them; stride: at which.
        seconds: about; NaN where so little is left that it is not timed.
        coarser: a stride that takes less time, where this is long; None where there is none.
        exact: number of images whose map at stride 1 is finished or begun, where no stride was chosen.
    """

    maps: int
    places: int
    stride: int
    seconds: float
    coarser: int | None = None
    exact: int = 0

    @property
    def long(self) -> bool:
        """True if it is long enough that a larger stride is worth naming."""
        return self.seconds > LONG_S

    def to_dict(self) -> JsonObject:
        """Return all fields."""
        return asdict(self)


def coarser(stride: int, size: int, usual: int) -> int | None:
    """Return a larger stride: the usual one, or else the largest; None where there is no larger one."""
    return next((larger for larger in (usual, size) if stride < larger <= size), None)


def estimate(
    maps: int, places: int, stride: int, seconds_a_place: float, *, size: int, usual: int, exact: int = 0
) -> Estimate:
    """Estimate the time of the maps that are left.

    Args:
        seconds_a_place: measured; NaN gives an estimate of NaN.
        size: of the square; usual: stride where none is given.
    """
    seconds = places * seconds_a_place
    larger_stride = coarser(stride, size, usual) if math.isfinite(seconds) and seconds > LONG_S else None
    return Estimate(maps, places, stride, seconds, larger_stride, exact)
