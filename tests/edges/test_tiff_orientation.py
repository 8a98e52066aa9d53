"""Tag 274 of a TIFF turns nothing unless a recipe says so, and then all of 1 to 8."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.decode import ImageSource, available_decoders, make_decoder
from engine.recipes import Recipe
from tests.corpus.turned import UPRIGHT

FOLDER = Path(__file__).parents[1] / "data" / "edges" / "tiff-orientation"


@pytest.mark.parametrize("exif", [False, True])
@pytest.mark.parametrize("decoder", ["reference", "turbo", "dali"])
def test_orientations(decoder: str, exif: bool) -> None:
    if reason := available_decoders()[decoder]:
        pytest.skip(reason)
    recipe = Recipe(resize="exact", size=64, crop=None, exif=exif)
    source = ImageSource(FOLDER, [f"orient{number}.tif" for number in UPRIGHT])
    with make_decoder(decoder, recipe, device="cpu", threads=1, batch_size=8) as made:
        (batch,) = made.stream(source, [range(8)])
    assert not batch.failures
    stored = np.asarray(Image.open(FOLDER / "as_stored.png"))
    for upright, pixels in zip(UPRIGHT.values(), batch.pixels.numpy(), strict=True):
        shown = Image.fromarray(np.ascontiguousarray(upright(stored) if exif else stored))
        expected = np.asarray(shown.resize((64, 64), Image.Resampling.BICUBIC)).astype(int)
        assert np.abs(pixels - expected).max() <= (2 if decoder == "turbo" else 0)
