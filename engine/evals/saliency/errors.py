"""Errors of maps: of scores in reduced precision, and of strides above 1."""

from dataclasses import asdict, dataclass
from math import nan

from stores.json_types import JsonObject


@dataclass(frozen=True)
class SampleError:
    """Scores against plain float32 forward passes, at some places of the square.

    Attributes:
        places: that were compared.
        max_error, mean_error: absolute errors.
        mean_score, sd_score: of all scores of the image, to judge them by.
    """

    places: int
    max_error: float
    mean_error: float
    mean_score: float
    sd_score: float

    def to_dict(self) -> JsonObject:
        """Return all fields."""
        return asdict(self)


@dataclass(frozen=True)
class StrideError:
    """A map at a stride above 1 against the exact one, inside a few windows.

    Attributes:
        pixels: of the windows.
        mean_error, max_error: absolute differences, in the unit of the map.
        mean_score: mean of the exact map in the windows, to judge them by.
        other_side: share of the pixels that lie above the map's mean in one map and not in the other, as
            attentive diffusion counts them.
    """

    pixels: int
    mean_error: float
    max_error: float
    mean_score: float
    other_side: float

    @classmethod
    def unknown(cls) -> "StrideError":
        """Return the error of a map that was not measured."""
        return cls(0, nan, nan, nan, nan)

    def to_dict(self) -> JsonObject:
        """Return all fields."""
        return asdict(self)
