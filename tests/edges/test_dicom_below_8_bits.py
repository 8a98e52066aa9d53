"""DICOM of fewer than 8 bits is shown over the whole range of grey, whatever the recipe's depth."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.decode import Limits, pillow
from engine.decode.formats.sniff import sniff
from engine.recipes import Recipe

pydicom = pytest.importorskip("pydicom")

FOLDER = Path(__file__).parents[1] / "data/edges/dicom-below-8-bits"
RECIPES = [Recipe(), Recipe(depth="scale"), Recipe(depth="voi"), Recipe(depth="window", window=(-1000, 400))]


def shown(data: bytes, recipe: Recipe) -> np.ndarray:
    header = sniff(data, recipe, Limits())
    assert not header.deep
    return np.asarray(pillow.picture_here(data, header, recipe))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.depth)
@pytest.mark.parametrize("name", ["one_bit", "six_bits"])
def test_files(name: str, recipe: Recipe) -> None:
    truth = np.asarray(Image.open(FOLDER / f"true_{name}.png").convert("L"))
    np.testing.assert_array_equal(shown((FOLDER / f"{name}.dcm").read_bytes(), recipe), truth)


@pytest.mark.parametrize("stored", range(2, 8))
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2", "RGB"])
def test_other_bits_and_kinds(stored: int, photometric: str) -> None:
    """Bits above the stored ones, where overlays once lay, are not seen."""
    dataset = pydicom.dcmread(FOLDER / "six_bits.dcm")
    samples = np.random.default_rng(stored).integers(0, 2**stored, (24, 16, 3), np.uint8)
    if photometric != "RGB":
        samples = samples[:, :, 0]
    else:
        dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsStored, dataset.HighBit, (dataset.Rows, dataset.Columns) = stored, stored - 1, (24, 16)
    dataset.PixelData = (samples | np.uint8(0x80 if stored < 7 else 0)).tobytes()
    out = io.BytesIO()
    dataset.save_as(out)
    expected = np.rint(samples * (255.0 / (2**stored - 1)))
    expected = 255 - expected if photometric == "MONOCHROME1" else expected
    np.testing.assert_array_equal(shown(out.getvalue(), Recipe()), expected)
