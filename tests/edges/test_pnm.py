"""PPM and PGM are listed and read."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.decode import Limits
from engine.decode.formats.sniff import sniff
from engine.decode.pillow import picture
from engine.recipes import Recipe
from stores.manifest.manifest import Manifest

FOLDER = Path(__file__).parents[1] / "data" / "edges" / "pnm"


@pytest.mark.parametrize("name", ["a.pgm", "a.ppm"])
def test_read(name: str) -> None:
    data = (FOLDER / name).read_bytes()
    shown = picture(data, sniff(data, Recipe(), Limits()), Recipe())
    assert np.array_equal(np.asarray(shown), np.asarray(Image.open(FOLDER / name)))


def test_listed() -> None:
    assert Manifest.from_folder(FOLDER).uris == ["a.pgm", "a.ppm"]
