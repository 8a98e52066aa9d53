"""PBM, PGM and PPM: samples as stored, white as the header says, damage found."""

import numpy as np
import pytest
from PIL import Image

from engine.decode import Limits
from engine.decode.formats.header import Header
from engine.decode.formats.sniff import sniff
from engine.decode.pillow import picture_here
from engine.errors import BadImage
from engine.recipes import Recipe
from tests.corpus.images import scene, written

GREY, RGB = scene(9, 13, 1), scene(9, 13)
BITS = GREY > 128


def shown(data: bytes, recipe: Recipe | None = None) -> np.ndarray:
    recipe = recipe or Recipe()
    return np.asarray(picture_here(data, sniff(data, recipe, Limits()), recipe))


def text(values: np.ndarray) -> bytes:
    return b"\n".join(b" ".join(b"%d" % value for value in row.ravel()) for row in values)


def deep(most: int, channels: int = 1) -> np.ndarray:
    return (scene(9, 13, channels).astype(np.float64) / 255 * most).astype(np.uint16)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"P5\n13 9\n255\n" + GREY.tobytes(), GREY),
        (b"P6 13\t9 255\r" + RGB.tobytes(), RGB),
        (b"P5 # a comment\n# another\n13 9 # and this\n255\n" + GREY.tobytes(), GREY),
        (b"P4\n13 9\n" + np.packbits(~BITS, axis=1).tobytes(), BITS * np.uint8(255)),
        (b"P1\n13 9\n" + text(~BITS), BITS * np.uint8(255)),
        (b"P1 13 9 " + text(~BITS).replace(b" ", b""), BITS * np.uint8(255)),
        (b"P2 13 9 255\n" + text(GREY), GREY),
        (b"P2 13 9 255\n" + text(GREY).replace(b"\n", b" # 99 and so on\n"), GREY),
        (b"P3 13 9 255\n" + text(RGB), RGB),
        (b"P5 13 9 100\n" + (GREY // 3).tobytes(), np.rint(GREY // 3 / 100 * 255)),
        (b"P6 13 9 31\n" + (RGB // 9).tobytes(), np.rint(RGB // 9 / 31 * 255)),
        (b"P5 13 9 255\n" + GREY.tobytes() + b"\nsome more bytes", GREY),
        (written(GREY, "PPM"), GREY),
        (written(RGB, "PPM"), RGB),
    ],
)
def test_eight_bits(data: bytes, expected: np.ndarray) -> None:
    assert np.array_equal(shown(data), expected)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("most", [300, 4095, 65535])
def test_deep_samples_are_those_of_the_file(most: int, channels: int) -> None:
    values = deep(most, channels)
    head = b"P%d 13 9 %d\n" % (5 if channels == 1 else 6, most)
    data = head + values.astype(">u2").tobytes()
    with pytest.raises(BadImage, match=f"{most.bit_length()} bits") as caught:
        shown(data)
    assert caught.value.code == "depth"
    scaled = np.rint(values.astype(np.float64) * 255 / most)
    assert np.array_equal(shown(data, Recipe(depth="scale")), scaled)
    window = np.rint((values.astype(np.float64) - 100).clip(0, 150) * 255 / 150)
    assert np.array_equal(shown(data, Recipe(depth="window", window=(100, 250))), window)
    written_out = b"P%d 13 9 %d\n" % (2 if channels == 1 else 3, most) + text(values)
    assert np.array_equal(shown(written_out, Recipe(depth="scale")), scaled)
    with pytest.raises(BadImage, match="only DICOM"):
        shown(data, Recipe(depth="voi"))


def test_agrees_with_pillow() -> None:
    import io

    for data in (
        b"P5 13 9 100\n" + (GREY // 3).tobytes(),
        b"P4\n13 9\n" + np.packbits(~BITS, axis=1).tobytes(),
    ):
        image = Image.open(io.BytesIO(data))
        assert np.array_equal(shown(data), np.asarray(image.convert("L")))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"P5\n13 9\n255\n" + GREY.tobytes()[:-1], "truncated"),
        (b"P5\n13 9", "truncated"),
        (b"P5\n", "truncated"),
        (b"P5\n# half a comm", "truncated"),
        (b"P2 13 9 255\n" + text(GREY)[:-40], "truncated"),
        (b"P1 13 9 " + text(~BITS)[:-9], "truncated"),
        (b"P2 13 9 255\n" + text(GREY).replace(b" ", b" x", 1), "corrupt"),
        (b"P2 13 9 200\n" + text(np.full((9, 13), 201)), "corrupt"),
        (b"P5 13 9 100\n" + bytes([101]) * 117, "corrupt"),
        (b"P1 13 9 " + text(np.full((9, 13), 2)), "corrupt"),
        (b"P5 13 9 0\n" + GREY.tobytes(), "corrupt"),
        (b"P5 13 9 65536\n" + GREY.tobytes(), "corrupt"),
        (b"P5 0 9 255\n", "corrupt"),
        (b"P5 99999 99999 255\n" + GREY.tobytes(), "too_large"),
        (b"P5 13 9 255\n" + GREY.tobytes() + b"P5 13 9 255\n" + GREY.tobytes(), "multi_frame"),
        (b"P5 is the name of a sample\n" * 9, "unknown_format"),
        (b"P2P network", "unknown_format"),
        (b"P7\nWIDTH 13\n", "undecodable"),
        (b"PF\n13 9\n-1.0\n" + bytes(999), "undecodable"),
    ],
)
def test_bad_files(data: bytes, code: str) -> None:
    with pytest.raises(BadImage) as caught:
        shown(data)
    assert caught.value.code == code


def test_header() -> None:
    header = sniff(b"P6 13 9 255\n" + RGB.tobytes(), Recipe(), Limits())
    assert header == Header("PPM", 13, 9, 8, "rgb")
