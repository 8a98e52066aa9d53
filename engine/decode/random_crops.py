"""Random resized crops and horizontal flips, drawn for a row and an epoch without any other draw."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.errors import Refused

#: Attempts before the central crop, as in torchvision.
ATTEMPTS = 10
#: Uniform numbers of one row in one epoch: area, ratio, top and left of every attempt, then the flip.
_UNIFORMS = 4 * ATTEMPTS + 1
#: A double takes the upper 53 of 64 bits.
_UNUSED_BITS, _ULP = np.uint64(11), 2.0**-53


@dataclass(frozen=True)
class Crop:
    """A crop of an image, in pixels of the upright image, and whether it is flipped left to right."""

    top: int
    left: int
    height: int
    width: int
    flip: bool


#: (height, width of the upright image) -> its crop.
DrawCrop = Callable[[int, int], Crop]


@dataclass(frozen=True)
class RandomCrops:
    """The distribution of torchvision's `RandomResizedCrop` followed by `RandomHorizontalFlip`.

    A crop is a pure function of these fields, the epoch, the row and the image's size, so that it depends
    neither on batches, threads and decoders, nor on where a run was resumed. The numbers come from Philox
    4x64-10 (Salmon et al., SC 2011, DOI 10.1145/2063384.2063405) with the key (seed, epoch) and a counter
    that starts at the row.

    Attributes:
        seed: from 0 to 2**64 - 1.
        scale: smallest and largest area of a crop, as a share of the image's.
        ratio: smallest and largest ratio of a crop's width to its height; uniform in its logarithm.
        flip: probability of a horizontal flip.

    Raises:
        Refused: a field is outside its range.
    """

    seed: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise _refused("seed", self.seed, "It is a whole number from 0 to 2**64 - 1")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise _refused("scale", self.scale, "It is two ascending shares of the area, above 0, at most 1")
        if not 0 < self.ratio[0] <= self.ratio[1] < math.inf:
            raise _refused("ratio", self.ratio, "It is two ascending ratios above 0")
        if not 0 <= self.flip <= 1:
            raise _refused("flip", self.flip, "It is a probability from 0 to 1")

    def uniforms(self, row: int, epoch: int) -> npt.NDArray[np.float64]:
        """Return a row's uniform numbers in [0, 1), float64 [4 * ATTEMPTS + 1], in the order of their use.

        They are (area, ratio, top, left) of the first attempt, of the second and so on, and the flip's.
        """
        generator = np.random.Philox(
            key=np.array([self.seed, epoch], np.uint64), counter=np.array([0, row, 0, 0], np.uint64)
        )
        # The raw words, because numpy promises that their stream never changes.
        words: npt.NDArray[np.uint64] = generator.random_raw(_UNIFORMS)
        return (words >> _UNUSED_BITS).astype(np.float64) * _ULP

    def crop(self, row: int, epoch: int, height: int, width: int) -> Crop:
        """Return the crop of an image of `height` x `width` pixels, as `RandomResizedCrop.get_params` does.

        The area and the logarithm of the ratio are uniform; the first attempt that fits is placed uniformly.
        After `ATTEMPTS` that do not fit, it is the largest central crop within the ratios.
        """
        *numbers, flip = self.uniforms(row, epoch).tolist()
        low, high = map(math.log, self.ratio)
        for i in range(0, len(numbers), 4):
            area, log_ratio, top, left = numbers[i : i + 4]
            pixels = height * width * (self.scale[0] + (self.scale[1] - self.scale[0]) * area)
            aspect = math.exp(low + (high - low) * log_ratio)
            w, h = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
            if 0 < w <= width and 0 < h <= height:
                y, x = math.floor(top * (height - h + 1)), math.floor(left * (width - w + 1))
                return Crop(y, x, h, w, flip < self.flip)
        h, w = self._central(height, width)
        return Crop((height - h) // 2, (width - w) // 2, h, w, flip < self.flip)

    def _central(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the largest crop within the ratios, of at least one pixel."""
        if width / height < self.ratio[0]:
            return max(1, round(width / self.ratio[0])), width
        if width / height > self.ratio[1]:
            return height, max(1, round(height * self.ratio[1]))
        return height, width


def _refused(field: str, value: object, rule: str) -> Refused:
    return Refused(f"random crops with {field} = {value!r}", rule, f"correct {field}")
