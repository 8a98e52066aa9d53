"""Samples to bytes."""

from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import BadImage


def levels(samples: npt.NDArray[Any], low: float, high: float, *, clip: bool) -> npt.NDArray[np.uint8]:
    """Bytes of samples: float64 (v - low) * 255 / (high - low), rounded half to even.

    Args:
        samples: of any type, [height, width].
        low, high: what becomes 0 and 255.
        clip: whether values beyond them were asked to become 0 and 255.

    Raises:
        BadImage: corrupt, samples that are not finite; depth, samples beyond the ends without `clip`.
    """
    values = (samples.astype(np.float64) - low) * 255 / (high - low)
    if not np.isfinite(values).all():
        raise BadImage("corrupt", "samples that are not finite")
    least, most = samples.min(), samples.max()
    if not clip and (least < low or most > high):
        raise BadImage("depth", f"samples of {least} to {most}, not of {low:g} to {high:g}; use a window")
    grey: npt.NDArray[np.uint8] = np.rint(values.clip(0, 255)).astype(np.uint8)
    return grey
