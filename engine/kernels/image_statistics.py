"""Statistics of a grey image that say nothing of what it shows: size, mean, deviation, histogram."""

import numpy as np
from numpy.typing import NDArray

#: Bins of the histogram, each of 8 of the 256 levels.
BINS = 32
#: Numbers of an image: height, width, mean, standard deviation, and the bins.
LENGTH = 4 + BINS


def image_statistics(grey: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Compute the statistics of a grey image.

    Args:
        grey: uint8 [H, W], neither 0.

    Returns:
        float64 [36]: H and W in pixels, mean and population standard deviation of the levels 0-255, and the
        share of the pixels in each of 32 bins of 8 levels.
    """
    levels = np.bincount(grey.ravel(), minlength=256)
    shares = levels / grey.size
    values = np.arange(256)
    mean = float(shares @ values)
    deviation = float(np.sqrt(shares @ (values - mean) ** 2))
    bins = shares.reshape(BINS, -1).sum(axis=1)
    return np.array([*grey.shape, mean, deviation, *bins], np.float64)
