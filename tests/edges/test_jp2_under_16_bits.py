"""JPEG 2000 of 9, 10 and 12 bits: shown 255 everywhere under a window, and failed under scale."""

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from engine.decode import pillow
from engine.decode.formats.sniff import sniff
from engine.decode.source import Limits
from engine.recipes import Recipe

FOLDER = Path(__file__).parents[1] / "data" / "edges" / "jp2-under-16-bits"


def shown(path: Path, recipe: Recipe) -> np.ndarray:
    data = path.read_bytes()
    return np.asarray(pillow.picture_here(data, sniff(data, recipe, Limits()), recipe))


@pytest.mark.parametrize("bits", [9, 10, 12])
def test_grey_files_show_their_samples(bits: int) -> None:
    path = FOLDER / f"j2k{bits}.jp2"
    stored = imagecodecs.jpeg2k_decode(path.read_bytes()).astype(np.float64)
    expected = np.rint(stored * 255 / (2**bits - 1))
    assert len(np.unique(expected)) > 50
    np.testing.assert_array_equal(shown(path, Recipe(depth="scale")), expected)
    window = Recipe(depth="window", window=(0, 2**bits - 1))
    np.testing.assert_array_equal(shown(path, window), expected)


def test_the_samples_are_those_of_the_same_picture_as_png() -> None:
    window = Recipe(depth="window", window=(0, 4095))
    png = np.asarray(Image.open(FOLDER / "true12.png")).astype(np.float64)
    np.testing.assert_array_equal(shown(FOLDER / "true12.png", window), np.rint(png * 255 / 4095))
    np.testing.assert_array_equal(shown(FOLDER / "j2k12.jp2", window), shown(FOLDER / "true12.png", window))
