"""The independent readers: alike with the reference where that is right, and in nothing its doing."""

import io
from collections.abc import Iterator
from itertools import product

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from engine.decode import deep, oracle, pillow
from engine.decode.bit_depth import levels
from engine.decode.formats import jpeg2000
from engine.decode.formats.sniff import sniff
from engine.decode.oracle import Oracle
from engine.decode.source import Limits
from engine.errors import BadImage
from engine.recipes import Recipe
from tests.corpus.images import dicom, png, tiff
from tests.corpus.jpeg2000 import coded, ends, jp2, palette, samples

SCALE = Recipe(size=16, crop=16, depth="scale")


def window(low: float, high: float) -> Recipe:
    return Recipe(size=16, crop=16, depth="window", window=(low, high))


def shown(data: bytes, recipe: Recipe, by: object) -> np.ndarray:
    header = sniff(data, recipe, Limits())
    return np.asarray(by.picture_here(data, header, recipe))  # type: ignore[attr-defined]


def _files() -> Iterator[tuple[str, bytes, Recipe]]:
    rng = np.random.default_rng(0)
    deep = rng.integers(0, 65536, (9, 7, 4)).astype(np.uint16)
    for count in (1, 2, 3, 4):
        stored = deep[:, :, 0] if count == 1 else deep[:, :, :count]
        yield f"png {count}", imagecodecs.png_encode(stored.copy()), window(900, 60000)
    out = io.BytesIO()
    tifffile.imwrite(out, deep[:, :, :3].copy(), photometric="rgb", compression="zlib")
    yield "tiff rgb", out.getvalue(), SCALE
    yield "tiff signed", tiff(rng.integers(-900, 900, (9, 7)).astype(np.int16)), window(-900, 500)
    yield "tiff inverted", tiff(rng.integers(0, 4096, (9, 7)).astype(np.uint16), 0), window(0, 4095)
    for bits, signed, count in product((1, 5, 8, 9, 12, 16), (False, True), (1, 3)):
        recipe = window(*ends(bits, signed)) if signed else SCALE
        yield f"j2k {bits} {signed} {count}", coded(samples(bits, signed, count), bits), recipe
    colours = rng.integers(0, 256, (16, 3)).astype(np.uint8)
    yield "palette", jp2(coded(samples(4, False, 1), 4), 1, 4, 16, palette(colours, (0, 1, 2))), SCALE
    yield "dicom", dicom(rng.integers(0, 4096, (9, 7)).astype(np.uint16), 12), SCALE
    ct = dicom(rng.integers(-900, 900, (9, 7)).astype(np.int16), 16, RescaleSlope=2, RescaleIntercept=-24)
    yield "ct", ct, window(-1000, 900)


def test_it_agrees_with_the_reference() -> None:
    for name, data, recipe in _files():
        by_oracle, by_reference = (shown(data, recipe, by) for by in (oracle, pillow))
        if by_reference.ndim > by_oracle.ndim:
            by_reference = by_reference[:, :, 0]
        np.testing.assert_array_equal(by_oracle, by_reference, name)


def test_it_shares_nothing_with_what_it_certifies(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the project's own reading of samples and making of bytes broken, it gives what it gave."""
    before = [shown(data, recipe, oracle) for _, data, recipe in _files()]
    for module, name in ((deep, "levels"), (deep, "samples"), (deep, "shown"), (jpeg2000, "samples")):
        monkeypatch.setattr(module, name, None)
    monkeypatch.setattr(levels, "__code__", (lambda *a, **k: None).__code__)
    monkeypatch.setattr(Image, "open", None)
    for (name, data, recipe), expected in zip(_files(), before, strict=True):
        np.testing.assert_array_equal(shown(data, recipe, oracle), expected, name)


def test_usual_images_and_failures_are_the_references() -> None:
    """Nothing is counted of 8 bits; what the run refuses by name is no disagreement."""
    made = Oracle()
    try:
        header = sniff(png(), SCALE, Limits())
        np.testing.assert_array_equal(made.render(png(), header, SCALE), pillow.render(png(), header, SCALE))
        assert made.counted() == {"images": 0, "independent": 0, "readers": {}}
        out = io.BytesIO()
        planes = np.zeros((3, 20, 20), np.uint16)
        tifffile.imwrite(out, planes, photometric="rgb", planarconfig="separate")
        with pytest.raises(BadImage, match="undecodable"):
            made.render(out.getvalue(), sniff(out.getvalue(), SCALE, Limits()), SCALE)
    finally:
        made.close()
