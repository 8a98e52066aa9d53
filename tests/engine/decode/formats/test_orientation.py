"""A recipe's `exif` alone says whether a picture is turned, whatever the format and the decoder."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from engine.decode import Decoder, ImageSource, Limits, available_decoders, make_decoder
from engine.decode.formats import orientation
from engine.decode.formats.sniff import sniff
from engine.decode.pillow import picture_here
from engine.recipes import Recipe
from tests.corpus import turned
from tests.corpus.tiffs import picture_tags, tiff_of
from tests.corpus.turned import EXIF_APP1, UPRIGHT, WAYS, XMP_APP1, app1, exif, jpeg_with, quarters, xmp

STORED, TURNED = (Recipe(resize="exact", size=24, crop=None, exif=exif) for exif in (False, True))
FILES = [(way, number) for way in WAYS for number in UPRIGHT]
pytestmark = pytest.mark.skipif("AVIF" not in Image.registered_extensions().values(), reason="no AVIF")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ImageSource:
    root = tmp_path_factory.mktemp("turned")
    for i, (way, number) in enumerate(FILES):
        (root / str(i)).write_bytes(WAYS[way](number))
    return ImageSource(root, [str(i) for i in range(len(FILES))])


def picture(data: bytes, recipe: Recipe) -> np.ndarray:
    return np.asarray(picture_here(data, sniff(data, recipe, Limits()), recipe))


def difference(shown: np.ndarray, expected: np.ndarray) -> int:
    assert shown.shape == expected.shape
    return int(np.abs(shown.astype(int) - expected).max())


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_asking(way: str) -> None:
    lossy = 8 if way.startswith(("JPEG,", "AVIF")) else 0
    for number, upright in UPRIGHT.items():
        data = WAYS[way](number)
        assert difference(picture(data, STORED), quarters()) <= lossy, number
        assert difference(picture(data, TURNED), upright(quarters())) <= lossy, number


@pytest.fixture(scope="module", params=["reference", "turbo", "turbo-dct", "dali"])
def decoders(request: pytest.FixtureRequest) -> Iterator[list[Decoder]]:
    name = request.param.removesuffix("-dct")
    if reason := available_decoders()[name]:
        pytest.skip(reason)
    made = [
        make_decoder(name, recipe, device="cpu", threads=1, batch_size=len(FILES), dct=name != request.param)
        for recipe in (STORED, TURNED)
    ]
    yield made
    for decoder in made:
        decoder.close()


def middles(square: np.ndarray) -> np.ndarray:
    """The colours of the four quarters, [2, 2, 3]."""
    step = len(square) // 4
    return square[step :: 2 * step, step :: 2 * step][:2, :2]


@pytest.mark.slow
def test_every_decoder_agrees(decoders: list[Decoder], source: ImageSource) -> None:
    for decoder, turns in zip(decoders, (False, True), strict=True):
        (batch,) = decoder.stream(source, [range(len(FILES))])
        assert not batch.failures
        for (way, number), pixels in zip(FILES, batch.pixels.numpy(), strict=True):
            flat = quarters()[6::12, 10::20]
            expected = UPRIGHT[number](flat) if turns else flat
            assert difference(middles(pixels), expected) <= 8, (way, number, turns)


@pytest.mark.parametrize("value", [0, 9, 300, 65535])
def test_other_numbers_turn_nothing(value: int) -> None:
    for way in ("JPEG, EXIF", "JPEG, XMP", "PNG, eXIf", "TIFF", "TIFF, XMP"):
        data = WAYS[way](value)
        assert sniff(data, TURNED, Limits()).orientation == 1
        assert picture(data, TURNED).shape == quarters().shape


def test_exif_goes_before_xmp_even_with_a_number_that_turns_nothing() -> None:
    data = jpeg_with(app1(EXIF_APP1 + exif(0)), app1(XMP_APP1 + xmp(6)))
    assert sniff(data, TURNED, Limits()).orientation == 1
    assert sniff(jpeg_with(app1(XMP_APP1 + xmp(6))), TURNED, Limits()).exif


@pytest.mark.parametrize(
    "block",
    [b"", b"II", b"garbage, not EXIF", exif(6)[:9], exif(6)[:12], b"II*\0\xff\xff\xff\xff" + bytes(9)],
)
def test_damaged_exif_turns_nothing(block: bytes) -> None:
    for data in (
        jpeg_with(app1(EXIF_APP1 + block)),
        turned.png_with(b"eXIf", block),
        turned.riff_with(b"EXIF", block, 0x08),
    ):
        assert difference(picture(data, TURNED), quarters()) <= 8


def test_agrees_with_pillow() -> None:
    """Of the ways that Pillow knows."""
    from PIL import ImageOps

    unknown = ("APP1", "raw profile XMP", "JPEG 2000")
    for way in (way for way in WAYS if not any(word in way for word in unknown)):
        for number in (3, 6):
            image = Image.open(io.BytesIO(WAYS[way](number)))
            expected = np.asarray(ImageOps.exif_transpose(image))
            assert np.array_equal(picture(WAYS[way](number), TURNED), expected), (way, number)


@pytest.mark.parametrize("big_endian", [False, True])
def test_deep_samples_are_turned_too(big_endian: bool) -> None:
    deep = quarters(1).astype(np.uint16) * 257
    tags = picture_tags(deep, _274=6)
    data = tiff_of(tags, deep.astype(">u2" if big_endian else "<u2").tobytes(), big_endian=big_endian)
    recipes = (Recipe(depth="scale", exif=exif) for exif in (False, True))
    stored, upright = (picture(data, recipe) for recipe in recipes)
    assert np.array_equal(stored, quarters(1)) and np.array_equal(upright, UPRIGHT[6](quarters(1)))


def test_files_that_ask_for_nothing_are_not_copied() -> None:
    data = tiff_of(picture_tags(quarters()), quarters().tobytes())
    assert orientation.without(data) is data
