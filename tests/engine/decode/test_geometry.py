"""Resize and crop are torchvision's, to the pixel, on every odd size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from engine.decode import ImageSource, Limits, available_decoders, make_decoder, pillow
from engine.decode import torchvision as turbo
from engine.decode.formats.sniff import sniff
from engine.decode.geometry import Geometry, plan
from engine.recipes import RECIPES, Recipe
from tests.corpus.images import scene, written

SIDES = st.integers(1, 700)
RECIPE = st.sampled_from(
    [
        Recipe(),
        Recipe(size=57, crop=40),
        Recipe(size=56, crop=41, interpolation="bilinear"),
        Recipe(resize="exact", size=64, crop=None),
        Recipe(resize="exact", size=64, crop=31, interpolation="bilinear"),
    ]
)


def torchvision_pixels(image: Image.Image, recipe: Recipe) -> np.ndarray:
    """What a user's own transforms give."""
    mode = {"bicubic": v2.InterpolationMode.BICUBIC, "bilinear": v2.InterpolationMode.BILINEAR}
    size = recipe.size if recipe.resize == "short" else [recipe.size, recipe.size]
    steps = [v2.Resize(size, mode[recipe.interpolation], antialias=True), v2.CenterCrop(recipe.side)]
    return np.asarray(v2.Compose(steps)(image.convert("RGB")))


@pytest.mark.slow
@given(height=SIDES, width=SIDES, recipe=RECIPE, grey=st.booleans())
@settings(max_examples=60, deadline=None)
def test_reference_is_torchvision_exactly(height: int, width: int, recipe: Recipe, grey: bool) -> None:
    pixels = scene(height, width, 1 if grey else 3)
    data = written(pixels)
    found = pillow.render(data, sniff(data, recipe, Limits()), recipe)
    if plan(height, width, recipe).extreme:
        return  # torchvision would take gigabytes
    assert np.array_equal(found, torchvision_pixels(Image.fromarray(pixels), recipe))


@pytest.mark.slow
@given(height=SIDES, width=SIDES, recipe=RECIPE, dct=st.booleans())
@settings(max_examples=60, deadline=None)
def test_turbo_is_near(height: int, width: int, recipe: Recipe, dct: bool) -> None:
    data = written(scene(height, width), "JPEG", quality=95, subsampling=0)
    header = sniff(data, recipe, Limits())
    found, _ = (turbo.render_dct if dct else turbo.render)(data, header, recipe)
    expected = pillow.render(data, header, recipe)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() <= 0.5


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu(needs="dali"))])
@pytest.mark.parametrize(
    "recipe", [Recipe(), RECIPES["imagenet-256-224-bilinear"]], ids=["bicubic", "bilinear"]
)
def test_dali_is_near(device: str, recipe: Recipe, tmp_path: Path) -> None:
    if reason := available_decoders()["dali"]:
        pytest.skip(reason)
    sizes = [
        (250, 291),
        (291, 250),
        (333, 447),
        (448, 448),
        (225, 224),
        (224, 500),
        (63, 50),
        (51, 77),
        (601, 599),
    ]
    for i, (height, width) in enumerate(sizes):
        (tmp_path / f"{i}").write_bytes(written(scene(height, width), "JPEG", quality=95, subsampling=0))
    source = ImageSource(tmp_path, [str(i) for i in range(len(sizes))])
    with make_decoder("dali", recipe, device=device, threads=2, batch_size=4) as decoder:
        batches = list(decoder.stream(source, [[0, 1, 2, 3], [4, 5, 6, 7], [8]]))
    assert not any(batch.fallbacks for batch in batches)
    for batch in batches:
        for row, pixels in zip(batch.rows, batch.pixels.cpu().numpy(), strict=True):
            expected = torchvision_pixels(Image.open(tmp_path / str(row)), recipe)
            assert np.abs(pixels.astype(int) - expected).mean() <= 0.5, sizes[row]


@given(height=st.integers(1, 3000), width=st.integers(1, 3000), recipe=RECIPE)
def test_plan_lies_within_the_resized_image(height: int, width: int, recipe: Recipe) -> None:
    to = plan(height, width, recipe)
    assert 0 <= to.top <= to.height - to.side
    assert 0 <= to.left <= to.width - to.side
    if recipe.resize == "short":
        assert min(to.height, to.width) == recipe.size
        # Exact in rational arithmetic: floor(long * size / short).
        assert max(to.height, to.width) * min(height, width) <= max(height, width) * recipe.size
        assert (max(to.height, to.width) + 1) * min(height, width) > max(height, width) * recipe.size


@given(
    height=st.integers(1, 12),
    width=st.integers(60, 700),
    turned=st.booleans(),
    recipe=st.sampled_from([Recipe(size=30, crop=24), Recipe(size=31, crop=31, interpolation="bilinear")]),
)
@settings(max_examples=60, deadline=None)
def test_window_is_the_crop_of_the_whole(height: int, width: int, turned: bool, recipe: Recipe) -> None:
    """What extreme shapes get is what the whole resized image would show there.

    Pillow resizes in two passes and may take them in another order for the window. Each pass rounds by half a
    level, and the second weighs the first's error by at most 1.25 (bicubic), so two orders differ by
    2 x (0.5 x 1.25 + 0.5) = 2.25 levels at most. On average it is less than a third: a first pass's error has
    a standard deviation of 0.29, that of two apart 0.41, and the mean magnitude of those is 0.33.
    """
    pixels = scene(height, width, 1)
    image = Image.fromarray(pixels.T.copy() if turned else pixels)
    to = plan(image.height, image.width, recipe)
    whole = pillow.resize_and_crop(image, to, recipe)
    window = pillow.resize_and_crop(image, _Extreme(**vars(to)), recipe)
    difference = np.abs(window.astype(int) - whole)
    assert difference.max() <= 2
    assert difference.mean() <= 0.33


class _Extreme(Geometry):
    extreme = True  # type: ignore[assignment]


@pytest.mark.slow
@given(height=SIDES, width=SIDES, recipe=RECIPE)
@settings(max_examples=60, deadline=None)
def test_grey_in_bands_is_grey_as_a_whole(height: int, width: int, recipe: Recipe) -> None:
    data = written(scene(height, width, 1))
    to = plan(height, width, recipe)
    found, _ = turbo.render(data, sniff(data, recipe, Limits()), recipe)
    whole = turbo._RESIZE[recipe.interpolation](
        torch.from_numpy(scene(height, width, 1))[None, None], [to.height, to.width], False
    )[0, 0, to.top : to.top + to.side, to.left : to.left + to.side]
    if not to.extreme:
        assert np.array_equal(found, np.repeat(whole.numpy()[:, :, None], 3, 2))
