"""What the header check says of good and bad files; the corpus covers the classes, this the facts."""

import struct
import zlib

import pytest
from PIL import Image

from engine.decode import Limits
from engine.decode.formats.header import Header
from engine.decode.formats.sniff import sniff
from engine.decode.formats.structure import png_rows_missing
from engine.errors import BadImage
from engine.recipes import Recipe
from tests.corpus import images
from tests.corpus.images import interlaced, jpeg, png, png_chunk, png_header, scene, tiff, written

ANY_DEPTH = Recipe(depth="scale")


def facts(data: bytes) -> Header:
    return sniff(data, ANY_DEPTH, Limits())


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "BMP", "JPEG2000", "GIF"])
@pytest.mark.parametrize("size", [(1, 1), (37, 250), (512, 3)])
def test_size_is_pillows(format: str, size: tuple[int, int]) -> None:
    header = facts(written(scene(*size), format))
    assert (header.format, header.height, header.width) == (format, *size)


@pytest.mark.slow
def test_size_of_every_good_file_is_pillows() -> None:
    import io

    groups = (cases for group, cases in images.BYTES.items() if group != "DICOM")
    for case in (case for cases in groups for case in cases if not case.code):
        data = case.make()
        header = sniff(data, case.recipe, Limits())
        assert (header.width, header.height) == Image.open(io.BytesIO(data)).size, case.name


@pytest.mark.parametrize(
    ("data", "bits", "samples"),
    [
        (images.png_16(images.depth_ramp(9)), 16, "unsigned"),
        (tiff(images.depth_ramp(9)), 16, "unsigned"),
        (tiff(images.depth_ramp(9).astype("i2")), 16, "signed"),
        (tiff(scene(channels=1).astype("f4")), 32, "float"),
        (images.jpeg_12_bits(), 12, "unsigned"),
        (written(scene(channels=1) > 99, "PNG"), 8, "unsigned"),
    ],
)
def test_depth(data: bytes, bits: int, samples: str) -> None:
    header = facts(data)
    assert (header.bits, header.samples, header.deep) == (bits, samples, bits > 8 or samples != "unsigned")


def test_limit_on_pixels_is_inclusive() -> None:
    data = written(scene(20, 30))
    assert sniff(data, Recipe(), Limits(max_pixels=600))
    with pytest.raises(BadImage, match="30 x 20 pixels, the limit is 599") as caught:
        sniff(data, Recipe(), Limits(max_pixels=599))
    assert caught.value.code == "too_large"


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"<html></html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"<?xml version='1.0'?><svg/>", "SVG"),
        (b"%!PS-Adobe", "PostScript"),
        (images.dicom_garbage()[132:], "DICOM without its preamble"),
        (b"%PDF-1.7", "PDF"),
        (b"hello", "68 65 6c"),
    ],
)
def test_refusal_says_what_it_is(data: bytes, word: str) -> None:
    with pytest.raises(BadImage) as caught:
        facts(data)
    assert caught.value.code == "unknown_format"
    assert word in caught.value.detail


@pytest.mark.parametrize(
    "data", [jpeg(), png(), written(scene(), "TIFF"), written(scene(), "GIF"), written(scene(), "BMP")]
)
def test_every_prefix_is_refused_in_one_of_the_known_ways(data: bytes) -> None:
    for stop in [*range(1, 200), *range(200, len(data) - 1, 997), len(data) - 1]:
        if stop == len(data) - 1 and data[:2] == b"II":
            continue  # its directory is last, and ends with a zero that may lack a byte
        with pytest.raises(BadImage) as caught:
            facts(data[:stop])
        assert caught.value.code in ("truncated", "unknown_format", "corrupt")


def test_small_packed_chunks_pass_and_large_do_not() -> None:
    text = b"Comment\0\0" + zlib.compress(b"a" * 1_000_000)
    assert facts(images.with_chunk(b"zTXt", text))
    packed = b"Comment\0\0" + zlib.compress(bytes(range(256)) * 5000 + b"a" * 3_000_000, 1)
    with pytest.raises(BadImage, match="1 MiB"):
        facts(images.with_chunk(b"zTXt", packed))


def test_missing_rows() -> None:
    for data in (png(), interlaced(), written(scene(), mode="1"), written(scene(), mode="P")):
        assert not png_rows_missing(data)
    assert png_rows_missing(images.with_rows(png(), 251))
    assert png_rows_missing(interlaced(missing=1))


def test_damaged_tiff_directories_end() -> None:
    data = written(scene(9, 9), "TIFF")
    many = data[:4] + struct.pack("<I", len(data)) + data[8:] + struct.pack("<H", 65535) + bytes(99)
    with pytest.raises(BadImage):
        facts(many)
    loop = struct.pack("<2sHI", b"II", 42, 8) + bytes(100)
    with pytest.raises(BadImage):
        facts(loop)


def test_png_of_many_tiny_chunks_is_read_to_its_end() -> None:
    data = png_header(9, 9) + png_chunk(b"tEXt", b"a\0b") * 20_000
    with pytest.raises(BadImage) as caught:
        facts(data)
    assert caught.value.code == "truncated"
