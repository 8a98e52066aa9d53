"""Normalisation against float64 numpy, torchvision, and the properties of the histogram step."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchvision import transforms

from engine.normalise import histogram_numpy, normalise, normalise_numpy
from engine.recipes import IMAGENET_MEAN, IMAGENET_SD, RECIPES, Recipe

HISTOGRAM = RECIPES["histogram-224"]
PIXELS = arrays(np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.just(3)))
DEVICES = ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)]


def run(pixels: np.ndarray, recipe: Recipe, device: str = "cpu") -> np.ndarray:
    return normalise(torch.from_numpy(pixels).to(device), recipe).cpu().numpy()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("recipe", [Recipe(), RECIPES["unit-224"], HISTOGRAM], ids=lambda r: r.normalise)
@given(pixels=PIXELS)
@settings(max_examples=50, deadline=None)
def test_equals_float64(device: str, recipe: Recipe, pixels: np.ndarray) -> None:
    np.testing.assert_allclose(
        run(pixels, recipe, device), normalise_numpy(pixels, recipe), rtol=1e-6, atol=1e-6
    )


def test_equals_torchvision_bit_for_bit() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    steps = transforms.Compose([transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_SD)])
    expected = torch.stack([steps(image) for image in pixels])
    assert torch.equal(normalise(torch.from_numpy(pixels), Recipe()), expected)


@pytest.mark.parametrize("recipe", [Recipe(), HISTOGRAM], ids=lambda r: r.normalise)
def test_form(recipe: Recipe) -> None:
    pixels = torch.randint(0, 256, (2, 8, 6, 3), dtype=torch.uint8)
    kept = pixels.clone()
    found = normalise(pixels, recipe)
    assert found.shape == (2, 3, 8, 6)
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(pixels, kept), "the input is untouched"
    assert normalise(pixels[:0], recipe).shape == (0, 3, 8, 6)


@given(pixels=PIXELS)
@settings(max_examples=30, deadline=None)
def test_histogram_of_an_image_is_its_own(pixels: np.ndarray) -> None:
    whole = run(pixels, HISTOGRAM)
    for i in range(len(pixels)):
        assert np.array_equal(whole[i : i + 1], run(pixels[i : i + 1], HISTOGRAM))


def test_known_values() -> None:
    assert histogram_numpy(np.array([0, 0.25, 0.5, 1])).tolist() == [63.75, 127.5, 191.25, 255]
    ramp = histogram_numpy(np.arange(256) / 255)
    np.testing.assert_allclose(ramp[[0, 1, 255]], [255 / 256, 2 * 255 / 256, 255], atol=0.01)
    assert np.all(histogram_numpy(np.full((5, 5), 0.3)) == 255)


def test_known_values_on_bytes() -> None:
    # 0, 64, 128, 256 quarters of the range, as far as bytes can say it: 0, 63, 126, 252.
    pixels = np.zeros((1, 2, 2, 3), np.uint8)
    pixels[0] = np.array([[0, 63], [126, 252]], np.uint8)[:, :, None]
    np.testing.assert_allclose(run(pixels, HISTOGRAM)[0, 0], [[63.75, 127.5], [191.25, 255]], rtol=1e-6)
    assert np.all(run(np.full((1, 4, 4, 3), 9, np.uint8), HISTOGRAM) == 255)


@given(pixels=PIXELS)
@settings(max_examples=50, deadline=None)
def test_histogram_properties(pixels: np.ndarray) -> None:
    out = run(pixels, HISTOGRAM)
    assert out.min() > 0
    assert out.max() <= 255
    for image, found in zip(pixels.transpose(0, 3, 1, 2), out, strict=True):
        assert found.max() == 255
        order = np.argsort(image, axis=None, kind="stable")
        assert np.all(np.diff(found.ravel()[order]) >= 0), "monotone"
        if image.min() < image.max():
            share = (image.astype(float) - image.min()) * 256 / (image.max() - float(image.min())) < 1
            np.testing.assert_allclose(found[image == image.min()], share.mean() * 255, rtol=1e-6)


@pytest.mark.slow
@given(
    values=arrays(np.uint8, (6, 7)),
    scale=st.sampled_from([0.25, 0.5, 2, 8]),
    shift=st.sampled_from([-3.0, 0.0, 17.0]),
)
def test_increasing_rescaling_changes_nothing(values: np.ndarray, scale: float, shift: float) -> None:
    plain = values.astype(np.float64)
    np.testing.assert_allclose(histogram_numpy(plain * scale + shift), histogram_numpy(plain), rtol=1e-9)


@given(values=arrays(np.uint8, (6, 7)))
def test_three_equal_channels_change_nothing(values: np.ndarray) -> None:
    grey = values.astype(np.float64)
    np.testing.assert_allclose(histogram_numpy(np.stack([grey] * 3)), np.stack([histogram_numpy(grey)] * 3))
