"""PNG and TIFF of 16 bits in colour: all is kept; tifffile, imagecodecs and torchvision are the oracles."""

import io
import struct
import zlib
from dataclasses import replace
from itertools import product

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
import torchvision
from PIL import Image

from engine.decode import pillow
from engine.decode.formats.sniff import sniff
from engine.decode.source import Limits
from engine.errors import BadImage
from engine.recipes import Recipe
from tests.corpus.images import dicom, half, jpeg_12_bits, png_16, png_chunk, tiff

SCALE, WINDOW = Recipe(depth="scale"), Recipe(depth="window", window=(1000, 3000))


def noise(channels: int, kind: str = "u2") -> np.ndarray:
    shape = (19, 13) if channels == 1 else (19, 13, channels)
    return np.random.default_rng(channels).integers(0, 65536, shape).astype("u2").view(kind)


def shown(data: bytes, recipe: Recipe = SCALE) -> np.ndarray:
    return np.asarray(pillow.picture_here(data, sniff(data, recipe, Limits()), recipe))


def refused(data: bytes, recipe: Recipe = SCALE) -> str:
    with pytest.raises(BadImage) as error:
        shown(data, recipe)
    return str(error.value)


def agrees(data: bytes, stored: np.ndarray) -> None:
    """Under scale and under a window, one rule for all channels."""
    values = stored.astype(np.float64)
    np.testing.assert_array_equal(shown(data), np.rint(values * 255 / 65535))
    windowed = np.rint(((values - 1000) * 255 / 2000).clip(0, 255))
    np.testing.assert_array_equal(shown(data, WINDOW), windowed)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png(channels: int) -> None:
    stored = noise(channels)
    data = imagecodecs.png_encode(stored)
    mode = torchvision.io.ImageReadMode.UNCHANGED
    other = torchvision.io.decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode)
    np.testing.assert_array_equal(other.numpy().transpose(1, 2, 0).reshape(stored.shape), stored)
    agrees(data, stored if channels == 1 else stored[:, :, 0] if channels == 2 else stored[:, :, :3])


def test_interlaced_png_in_colour() -> None:
    """Adam7 of 16 bits: imagecodecs reads it, nobody here writes it but this."""
    stored, rows = noise(3), b""
    for top, left, down, along in (
        (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1),
    ):  # fmt: skip
        for row in stored[top::down, left::along]:
            rows += b"\0" + row.astype(">u2").tobytes()
    head = struct.pack(">IIBBBBB", 13, 19, 16, 2, 0, 0, 1)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)
    np.testing.assert_array_equal(imagecodecs.png_decode(data), stored)
    agrees(data, stored)


def written(stored: np.ndarray, **how: object) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, stored, metadata=None, **how)
    return out.getvalue()


@pytest.mark.parametrize("channels", [3, 4])
def test_tiff(channels: int) -> None:
    stored = noise(channels)
    for coding, order, tile in product((None, "zlib", "lzw"), "<>", (None, (16, 16))):
        extra = ["unassalpha"] if channels == 4 else None
        how = {"photometric": "rgb", "compression": coding, "tile": tile, "predictor": coding == "lzw"}
        data = written(stored, byteorder=order, extrasamples=extra, **how)
        agrees(data, stored[:, :, :3])


@pytest.mark.parametrize("channels", [2, 3])
def test_a_picture_is_turned_by_its_orientation(channels: int) -> None:
    exif = Image.Exif()
    exif[274] = 6
    plain = imagecodecs.png_encode(noise(channels))
    data = plain[:33] + png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + plain[33:]
    turned = shown(data, Recipe(depth="scale", exif=True))
    np.testing.assert_array_equal(turned, np.rot90(shown(plain), -1))


@pytest.mark.parametrize("recipe", [Recipe(), SCALE, Recipe(deep=("scale",))])
def test_what_would_lose_bits_is_refused_by_name(recipe: Recipe) -> None:
    """And no rule is offered as a remedy that would not help."""
    planes = np.moveaxis(noise(3), -1, 0)
    how = {"photometric": "rgb", "planarconfig": "separate"}
    made = {
        "TIFF of 16 bits, 3 channels in planes of their own": written(planes, **how),
        "3 channels in planes of their own": written(planes, compression="zlib", **how),
        "RGBa;16": written(noise(4), photometric="rgb", extrasamples=["assocalpha"]),
        "grey, 2 channels": written(noise(2), photometric="minisblack", extrasamples=["unassalpha"]),
        "CMYK;16": written(noise(4), photometric="separated"),
        "JPEG of 12 bits; write it as PNG or TIFF": jpeg_12_bits(),
    }
    for name, data in made.items():
        said = refused(data, recipe)
        assert said.startswith("undecodable: "), (name, said)
        assert name in said


def test_damaged_colour_is_no_picture() -> None:
    assert refused(half(png_16(noise(3)))).startswith("truncated")
    assert refused(written(noise(3), photometric="rgb", compression="zlib")[:600]).startswith("truncated")


def test_every_remedy_of_a_failed_row_shows_it() -> None:
    """The words of the message, run on the row that failed."""
    files = {
        "png grey": imagecodecs.png_encode(noise(1)),
        "png rgba": imagecodecs.png_encode(noise(4)),
        "tiff rgb": written(noise(3), photometric="rgb"),
        "tiff signed": tiff(noise(1, "i2")),
        "tiff float": tiff(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)),
        "dicom": dicom(noise(1), 16),
        "dicom colour": dicom(noise(3), 16),
        "dicom with a window": dicom(noise(1), 16, WindowCenter=900, WindowWidth=1500),
        "dicom signed": dicom(noise(1, "i2"), 16),
    }
    tried = 0
    for (name, data), recipe in product(
        files.items(), (Recipe(), Recipe(depth="voi"), SCALE, Recipe(deep=("voi",)), Recipe(deep=("scale",)))
    ):
        try:
            shown(data, recipe)
            continue
        except BadImage as error:
            assert error.code == "depth", name
            said = error.detail.rpartition("; ")[2].removesuffix(" shows it, and changes no other row")
        for remedy in said.split(" or "):
            if "if the file has a window" in remedy and "window" not in name:
                continue
            rules = remedy.split("`")[1].replace("LOW,HIGH", "0,1000")
            words = tuple(rules.removeprefix("embank embed ").replace("--deep", "").split())
            assert words[: len(recipe.deep)] == recipe.deep
            shown(data, replace(recipe, deep=words))
            tried += 1
    assert tried > 20


def test_rules_are_tried_in_order_and_on_deep_images_alone() -> None:
    eight = io.BytesIO()
    Image.fromarray(noise(3).astype(np.uint8)).save(eight, "PNG")
    recipe = Recipe(deep=("voi", "window:1000,3000", "scale"))
    np.testing.assert_array_equal(shown(eight.getvalue(), recipe), shown(eight.getvalue(), Recipe()))
    agrees_with_window = shown(imagecodecs.png_encode(noise(3)), recipe)
    np.testing.assert_array_equal(agrees_with_window, shown(imagecodecs.png_encode(noise(3)), WINDOW))
    windowed = dicom(noise(1), 16, WindowCenter=900, WindowWidth=1500)
    np.testing.assert_array_equal(shown(windowed, recipe), shown(windowed, Recipe(depth="voi")))
    # 8 bits with a window of their own: `depth` voi shows it, the rules for deep images do not.
    small = dicom(noise(1).astype(np.uint8), 8, WindowCenter=100, WindowWidth=50)
    np.testing.assert_array_equal(shown(small, recipe), shown(small, Recipe()))
    assert (shown(small, Recipe(depth="voi")) != shown(small, Recipe())).any()
