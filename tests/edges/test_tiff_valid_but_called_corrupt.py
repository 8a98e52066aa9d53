"""Sound TIFFs that Pillow does not read are named; none is called corrupt."""

from pathlib import Path

import numpy as np
import pytest

from engine.decode import Limits
from engine.decode.formats.sniff import sniff
from engine.decode.pillow import picture
from engine.errors import BadImage
from engine.recipes import Recipe

FOLDER = Path(__file__).parents[1] / "data" / "edges" / "tiff-valid-but-called-corrupt"
WINDOW = Recipe(depth="window", window=(0, 1))


@pytest.mark.parametrize("recipe", [Recipe(), WINDOW], ids=["refuse", "window"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("aperio_33005.tif", "JPEG 2000 .Aperio, RGB. compression .33005.*tifffile"),
        ("five_channels.tif", "5 channels"),
        ("float16.tif", "floating-point TIFF of 16-bit .*float32"),
        ("float64.tif", "floating-point TIFF of 64-bit .*float32"),
        ("jpeg2000_34712.tif", "JPEG 2000 compression .34712"),
    ],
)
def test_named(name: str, words: str, recipe: Recipe) -> None:
    with pytest.raises(BadImage, match=words) as caught:
        sniff((FOLDER / name).read_bytes(), recipe, Limits())
    assert caught.value.code == "undecodable"


def test_webp_inside_is_shown_or_named_as_pillow_was_built() -> None:
    data = (FOLDER / "webp.tif").read_bytes()
    header = sniff(data, Recipe(), Limits())
    try:
        assert picture(data, header, Recipe()).size == (97, 84)
    except BadImage as bad:
        assert bad.code == "undecodable" and "WebP compression (50001)" in bad.detail


def test_signed_bytes_are_read_under_a_window() -> None:
    tifffile = pytest.importorskip("tifffile")
    data = (FOLDER / "int8.tif").read_bytes()
    recipe = Recipe(depth="window", window=(-80, 127))
    shown = np.asarray(picture(data, sniff(data, recipe, Limits()), recipe))
    values = tifffile.imread(FOLDER / "int8.tif").astype(np.float64)
    assert np.array_equal(shown, np.rint((values + 80) * 255 / 207))
    with pytest.raises(BadImage, match="signed") as caught:
        sniff(data, Recipe(), Limits())
    assert caught.value.code == "depth"
