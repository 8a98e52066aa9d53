"""Random crops: torchvision's algorithm on the same numbers, its distribution, and no state."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats
from torchvision.transforms import RandomResizedCrop

from engine.decode.random_crops import Crop, RandomCrops
from engine.errors import Refused

SIDES = st.integers(1, 5000)


@st.composite
def distributions(draw: st.DrawFn) -> RandomCrops:
    """Any distribution, also those whose crops rarely fit."""
    scale = sorted((draw(st.floats(0.01, 1)), draw(st.floats(0.01, 1))))
    ratio = sorted((draw(st.floats(0.1, 10)), draw(st.floats(0.1, 10))))
    return RandomCrops(
        draw(st.integers(0, 2**64 - 1)), (scale[0], scale[1]), (ratio[0], ratio[1]), draw(st.floats(0, 1))
    )


class Feed:
    """Gives torchvision's draws the uniform numbers of a row; each attempt has four of them."""

    def __init__(self, numbers: list[float]) -> None:
        self.numbers, self.uniforms, self.places = numbers, 0, 0

    def uniform_(self, tensor: torch.Tensor, low: float, high: float) -> torch.Tensor:
        number = self.numbers[4 * (self.uniforms // 2) + self.uniforms % 2]
        self.uniforms += 1
        return tensor.fill_(low + (high - low) * number)

    def randint(self, low: int, high: int, size: tuple[int, ...]) -> torch.Tensor:
        number = self.numbers[4 * (self.uniforms // 2 - 1) + 2 + self.places]
        self.places += 1
        return torch.tensor([low + math.floor(number * (high - low))])


def torchvisions(crops: RandomCrops, row: int, epoch: int, height: int, width: int) -> Crop:
    """Return torchvision's own crop from the row's numbers, in float64 instead of its float32."""
    *numbers, flip = crops.uniforms(row, epoch).tolist()
    feed = Feed(numbers)
    image = torch.empty((1, 1, 1), dtype=torch.uint8).expand(1, height, width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "uniform_", lambda *args: feed.uniform_(*args))
        patch.setattr(torch, "randint", feed.randint)
        torch.set_default_dtype(torch.float64)
        try:
            top, left, h, w = RandomResizedCrop.get_params(image, list(crops.scale), list(crops.ratio))
        finally:
            torch.set_default_dtype(torch.float32)
    return Crop(top, left, h, w, flip < crops.flip)


@given(distributions(), st.integers(0, 2**40), st.integers(0, 2**20), SIDES, SIDES)
@example(RandomCrops(0), 0, 0, 1, 1)
@example(RandomCrops(0, ratio=(2, 3)), 1, 2, 500, 10)  # central, too tall
@example(RandomCrops(0, ratio=(2, 3)), 1, 2, 10, 500)  # central, too wide
@example(RandomCrops(0, scale=(1, 1), ratio=(0.9, 1.2)), 1, 2, 500, 500)  # central, complete
def test_algorithm_is_torchvisions(crops: RandomCrops, row: int, epoch: int, height: int, width: int) -> None:
    crop = crops.crop(row, epoch, height, width)
    expected = torchvisions(crops, row, epoch, height, width)
    if 0 in (expected.height, expected.width):  # torchvision's central crop may vanish; ours has a pixel
        assert (crop.height, crop.width) == (max(1, expected.height), max(1, expected.width))
    else:
        assert crop == expected
    assert crop.height >= 1 and crop.width >= 1
    assert 0 <= crop.top <= height - crop.height
    assert 0 <= crop.left <= width - crop.width


def test_distribution_is_torchvisions() -> None:
    """Kolmogorov-Smirnov, two samples each: area, ratio, position and attempts that do not fit."""
    height, width, n = 300, 420, 4000
    crops = [RandomCrops(11).crop(i, i % 3, height, width) for i in range(n)]
    ours = np.array([[c.top, c.left, c.height, c.width] for c in crops], np.float64)
    torch.manual_seed(5)
    image = torch.empty((1, height, width), dtype=torch.uint8)
    draws = [RandomResizedCrop.get_params(image, [0.08, 1], [3 / 4, 4 / 3]) for _ in range(n)]
    theirs = np.array(draws, np.float64)
    for name, of in {
        "area": lambda a: a[:, 2] * a[:, 3],
        "log ratio": lambda a: np.log(a[:, 3] / a[:, 2]),
        "top": lambda a: a[:, 0],
        "left": lambda a: a[:, 1],
        "centre": lambda a: a[:, 1] / (width - a[:, 3]).clip(1),
    }.items():
        assert stats.ks_2samp(of(ours), of(theirs)).pvalue > 0.01, name
    assert stats.binomtest(sum(c.flip for c in crops), n, 0.5).pvalue > 0.01
    # Neither neighbouring rows nor the numbers of a row depend on one another.
    assert abs(stats.spearmanr(ours[:-1, 0], ours[1:, 0]).statistic) < 0.05
    flips = np.array([c.flip for c in crops])
    assert abs(stats.spearmanr(flips, ours[:, 3]).statistic) < 0.05


def test_numbers_are_numpys_philox() -> None:
    """The numbers of a row are those of numpy's generator, and change with seed, epoch and row."""
    numbers = RandomCrops(7).uniforms(3, 2)
    bits = np.random.Philox(key=np.array([7, 2], np.uint64), counter=np.array([0, 3, 0, 0], np.uint64))
    np.testing.assert_array_equal(numbers, np.random.Generator(bits).random(41))
    others = [RandomCrops(8).uniforms(3, 2), RandomCrops(7).uniforms(4, 2), RandomCrops(7).uniforms(3, 3)]
    assert not any(np.isin(numbers, other).any() for other in others)


def test_flip_never_and_always() -> None:
    for flip in (0.0, 1.0):
        crops = RandomCrops(0, flip=flip)
        assert {crops.crop(row, 0, 9, 9).flip for row in range(50)} == {bool(flip)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": -1},
        {"seed": 2**64},
        {"scale": (0, 1)},
        {"scale": (0.5, 0.4)},
        {"scale": (0.5, 1.1)},
        {"scale": (math.nan, 1)},
        {"ratio": (0, 1)},
        {"ratio": (1, math.inf)},
        {"ratio": (2, 1)},
        {"flip": 1.5},
        {"flip": math.nan},
    ],
)
def test_fields_outside_their_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(Refused, match="Remedy: "):
        RandomCrops(**{"seed": 0, **wrong})  # type: ignore[arg-type]
