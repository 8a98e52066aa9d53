"""TIFFs that Pillow does not read are named, those that it reads are not, and damage stays damage."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from engine.decode import Limits
from engine.decode.formats import tiff
from engine.decode.formats.sniff import sniff
from engine.decode.pillow import picture_here
from engine.errors import BadImage
from engine.recipes import Recipe
from tests.corpus.images import scene, written
from tests.corpus.tiffs import picture_tags, tiff_of

SCALE = Recipe(depth="scale")
GREY = scene(8, 8, 1)


def refused(data: bytes, recipe: Recipe = SCALE) -> BadImage:
    with pytest.raises(BadImage) as caught:
        picture_here(data, sniff(data, recipe, Limits()), recipe)
    return caught.value


def of(values: np.ndarray, **changed: int | list[int]) -> bytes:
    return tiff_of(picture_tags(values, **changed), values.tobytes())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (of(GREY.astype(np.float64)), "floating-point TIFF of 64-bit floating-point samples"),
        (of(GREY.astype(np.float16)), "floating-point TIFF of 16-bit"),
        (of(scene(8, 8).astype(np.float32)), "32-bit floating-point samples, RGB, 3 channels"),
        (of(GREY.astype(np.complex64)), "64-bit complex samples"),
        (of(GREY.astype(np.uint64)), "64-bit unsigned samples"),
        (of(GREY.astype(np.int16), _262=0), "16-bit signed samples, grey .white is zero."),
        (of(GREY.astype(np.uint16), _262=3), "16-bit unsigned samples, palette"),
        (of(scene(8, 8), _262=1, _338=[0, 0]), "grey, 3 channels; write one channel, or three"),
        (of(scene(8, 8), _262=32803), "colour filter array"),
        (of(GREY, _259=34661), "JBIG compression .34661."),
        (of(GREY, _259=34887), "LERC compression"),
        (of(GREY, _259=50002), "JPEG XL compression"),
    ],
)
def test_named(data: bytes, words: str) -> None:
    for recipe in (SCALE, Recipe(), Recipe(depth="window", window=(0, 1))):
        with pytest.raises(BadImage, match=words) as caught:
            sniff(data, recipe, Limits())
        assert caught.value.code == "undecodable"


@pytest.mark.parametrize("name", ["jpeg2000", "lerc", "jpegxl", "jpegxr", "png", "aperio_jp2000_ycbc"])
def test_files_of_another_writer(name: str) -> None:
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")
    out = io.BytesIO()
    tifffile.imwrite(out, scene(32, 32), compression=name, photometric="rgb")
    assert refused(out.getvalue()).code == "undecodable"


@pytest.mark.parametrize(
    "data",
    [
        of(GREY, _259=4711),
        of(GREY, _258=[77]),
        of(GREY, _339=99),
        of(GREY, _262=99),
        of(GREY, _277=4),
        of(GREY, _262=0, _258=[8] * 4, _277=1, _338=[0, 0], _284=2),
        of(GREY, _259=5),
        of(GREY, _259=8),
        of(GREY, _259=50000),
    ],
)
def test_damage_stays_corrupt(data: bytes) -> None:
    bad = refused(data)
    assert bad.code in ("corrupt", "undecodable")
    assert bad.code == "corrupt" or "channels" in bad.detail


def test_a_codec_that_pillow_was_built_without_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file's Zstandard data are damaged; without the codec nobody can say so."""
    assert refused(of(GREY, _259=50000)).code == "corrupt"
    monkeypatch.setattr(tiff, "_has_codec", lambda compression: False)
    bad = refused(of(GREY, _259=50000))
    assert bad.code == "undecodable" and "Zstandard compression" in bad.detail
    assert refused(of(GREY, _259=5)).code == "corrupt"


def test_exactly_what_pillow_opens_is_passed() -> None:
    """Over layouts, sound and absurd. Grey in many channels is refused, though Pillow shows the first."""
    base = picture_tags(GREY)
    passed = 0
    for big_endian, photometric, kind, channels, bits, extra, planes in itertools.product(
        (False, True), (0, 1, 2, 3, 6), (1, 2, 3), (1, 3, 4), (8, 16, 32), ([], [0], [0, 0]), (1, 2)
    ):
        changed = {262: [photometric], 339: [kind], 258: [bits] * channels, 277: [channels], 284: [planes]}
        changed |= {320: [0] * 768} if photometric == 3 else {}
        data = tiff_of(base | changed | ({338: extra} if extra else {}), bytes(64), big_endian=big_endian)
        many = photometric not in (2, 5, 6) and channels > 2
        try:
            TiffImagePlugin.TiffImageFile(io.BytesIO(data))
            opens = not many
        except SyntaxError:
            opens = False
        try:
            passes = bool(sniff(data, SCALE, Limits()))
        except BadImage as bad:
            assert bad.code == "undecodable"
            passes = False
        assert passes == opens, (big_endian, photometric, kind, channels, bits, extra, planes)
        passed += passes
    assert passed > 50


@pytest.mark.parametrize(
    "compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "lzma", "zstd"]
)
def test_compressions_that_pillow_reads(compression: str) -> None:
    try:
        data = written(scene(40, 50), "TIFF", compression=compression)
    except OSError:
        pytest.skip("not in this Pillow")
    shown = picture_here(data, sniff(data, Recipe(), Limits()), Recipe())
    assert np.array_equal(np.asarray(shown), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
