"""Conversion of samples of any depth to bytes."""

from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import BadImage


def scale_to_bytes(
    samples: npt.NDArray[Any], low: float, high: float, *, clip: bool
) -> npt.NDArray[np.uint8]:
    """Scale samples to bytes, (v - low) * 255 / (high - low) in float64, rounded half to even.

    Args:
        samples: [height, width], of any type.
        low, high: values that become 0 and 255.
        clip: whether values outside become 0 and 255.

    Raises:
        BadImage: corrupt, if samples are not finite; depth, if samples are outside without `clip`.
    """
    values = (samples.astype(np.float64) - low) * 255 / (high - low)
    if not np.isfinite(values).all():
        raise BadImage("corrupt", "samples that are not finite")
    smallest, largest = samples.min(), samples.max()
    if not clip and (smallest < low or largest > high):
        raise BadImage(
            "depth", f"samples of {smallest} to {largest}, not of {low:g} to {high:g}; use a window"
        )
    grey: npt.NDArray[np.uint8] = np.rint(values.clip(0, 255)).astype(np.uint8)
    return grey
