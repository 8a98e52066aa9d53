"""AVIF: read by Pillow where it can; what else is in such boxes is named."""

import io
from functools import lru_cache

import numpy as np
import pytest
from PIL import Image, features

from engine.decode import Limits
from engine.decode.formats import avif
from engine.decode.formats.sniff import sniff
from engine.decode.pillow import picture
from engine.errors import BadImage
from engine.recipes import Recipe
from tests.corpus.images import half, scene

pytestmark = pytest.mark.skipif(
    "avif" not in features.get_supported_modules(), reason="this Pillow writes no AVIF"
)


@lru_cache
def written(channels: int = 3, copies: int = 1) -> bytes:
    out = io.BytesIO()
    pixels = scene(60, 90, channels) if channels < 4 else np.dstack([scene(60, 90), scene(60, 90, 1)])
    image = Image.fromarray(pixels)
    image.save(out, "AVIF", speed=10, save_all=True, append_images=[image.rotate(9)] * (copies - 1))
    return out.getvalue()


def refused(data: bytes) -> BadImage:
    with pytest.raises(BadImage) as caught:
        sniff(data, Recipe(), Limits())
    return caught.value


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_read(channels: int) -> None:
    data = written(channels)
    header = sniff(data, Recipe(), Limits())
    assert (header.format, header.width, header.height) == ("AVIF", 90, 60)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(np.asarray(picture(data, header, Recipe()).convert("RGB")), expected)


def test_limits_hold() -> None:
    with pytest.raises(BadImage, match="90 x 60 pixels, the limit is 99") as caught:
        sniff(written(), Recipe(), Limits(max_pixels=99))
    assert caught.value.code == "too_large"


def test_sequences() -> None:
    assert refused(written(copies=2)).code == "multi_frame"


@pytest.mark.parametrize(("flag", "bits"), [(0x40, 10), (0x60, 12)])
def test_more_than_eight_bits_are_named(flag: int, bits: int) -> None:
    data = bytearray(written())
    at = data.index(b"av1C") + 6
    data[at] |= flag
    bad = refused(bytes(data))
    assert bad.code == "undecodable" and f"{bits} bits" in bad.detail


def test_ten_bits_of_another_encoder() -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    deep = scene(60, 90).astype(np.uint16) * 4
    assert "10 bits" in refused(imagecodecs.avif_encode(deep, bitspersample=10)).detail


@pytest.mark.parametrize("stop", [9, 14, 30, 100, 200, -20])
def test_truncated(stop: int) -> None:
    assert refused(written()[:stop]).code == "truncated"
    assert refused(half(written())).code == "truncated"


def test_damage_within() -> None:
    data = bytearray(written())
    at = data.index(b"mdat") + 4
    data[at : at + 40] = b"\xff" * 40
    header = sniff(bytes(data), Recipe(), Limits())
    with pytest.raises(BadImage) as caught:
        picture(bytes(data), header, Recipe())
    assert caught.value.code == "corrupt"


def test_damaged_boxes_are_refused_in_one_of_the_known_ways() -> None:
    random = np.random.default_rng(0)
    codes = set()
    for _ in range(300):
        data = bytearray(written())
        for at in random.integers(0, 300, 4):
            data[at] = random.integers(256)
        try:
            sniff(bytes(data), Recipe(), Limits())
        except BadImage as bad:
            codes.add(bad.code)
    assert codes <= {"corrupt", "truncated", "too_large", "undecodable", "unknown_format", "multi_frame"}
    assert "corrupt" in codes


@pytest.mark.parametrize(
    ("brand", "code", "word"),
    [
        (b"heic", "undecodable", "HEIC"),
        (b"heix", "undecodable", "HEIC"),
        (b"mif1", "undecodable", "HEIF"),
        (b"isom", "unknown_format", "film"),
    ],
)
def test_the_rest_of_the_family(brand: bytes, code: str, word: str) -> None:
    bad = refused(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0" + brand * 2 + bytes(200))
    assert bad.code == code and word in bad.detail


def test_a_pillow_without_avif(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda name: False)
    bad = refused(written())
    assert (bad.code, bad.pending) == ("needs_package", True)
    assert "pip install 'pillow>=11.3'" in bad.detail


def test_quarter_turns_then_a_mirror() -> None:
    """ISO/IEC 23008-12: irot turns against the clock, imir then exchanges top and bottom (0) or the sides."""
    from tests.corpus.turned import UPRIGHT

    stored = scene(5, 7)
    for (quarters, axis), number in avif._ORIENTATIONS.items():
        expected = np.rot90(stored, quarters)
        if axis is not None:
            expected = np.flip(expected, axis)
        assert np.array_equal(UPRIGHT[number](stored), expected)
