"""What is no image for us is named; a sound picture of another format is told from what is no picture."""

import gzip
import io

import numpy as np
import pytest
from PIL import Image

from engine.decode import Limits
from engine.decode.formats.sniff import sniff
from engine.decode.pillow import picture_here
from engine.errors import BadImage
from engine.recipes import Recipe
from tests.corpus.images import jpeg, jpeg_12_bits, scene


def refused(data: bytes, recipe: Recipe | None = None) -> BadImage:
    recipe = recipe or Recipe()
    with pytest.raises(BadImage) as caught:
        picture_here(data, sniff(data, recipe, Limits()), recipe)
    return caught.value


def nifti(magic: bytes = b"n+1\0", order: str = "little") -> bytes:
    head = bytearray(348 + 4)
    head[:4] = (348).to_bytes(4, order)  # type: ignore[arg-type]
    head[344:348] = magic
    return bytes(head) + bytes(500)


def by_pillow(format: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(scene(16, 16)).save(out, format)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"\xff\x0a" + bytes(99), "JPEG XL; convert it to PNG with djxl"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99), "JPEG XL"),
        (nifti(), "NIfTI; convert slices"),
        (nifti(order="big"), "NIfTI; convert slices"),
        (nifti(b"ni1\0"), "the header of a NIfTI volume"),
        (nifti(bytes(4)), "NIfTI or Analyze"),
        ((540).to_bytes(4, "little") + b"n+2\0\r\n\x1a\n" + bytes(600), "NIfTI-2"),
        (gzip.compress(nifti(), mtime=0), "packed with gzip: NIfTI"),
        (b"NRRD0004\n", "NRRD"),
        (b"SIMPLE  =                    T", "FITS"),
        (by_pillow("QOI"), "QOI"),
        (by_pillow("PCX"), "PCX"),
        (by_pillow("SGI"), "SGI"),
        (by_pillow("ICO"), "icon"),
        (by_pillow("DDS"), "DDS"),
    ],
)
def test_sound_pictures(data: bytes, word: str) -> None:
    bad = refused(data)
    assert bad.code == "undecodable" and word in bad.detail


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (gzip.compress(b"text", mtime=0), "gzip; unpack it first"),
        (b"\x1f\x8bdamaged", "gzip"),
        (b"\x93NUMPY\1\0", "NumPy"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"%PDF-1.7", "PDF"),
        (b"P5", "it begins with 50 35"),
    ],
)
def test_what_is_no_picture(data: bytes, word: str) -> None:
    bad = refused(data)
    assert bad.code == "unknown_format" and word in bad.detail


@pytest.mark.parametrize("name", ["jpegxl", "jpegxr", "jpegls", "qoi"])
def test_real_files(name: str) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    bad = refused(getattr(imagecodecs, f"{name}_encode")(scene(16, 16)))
    expected = {"jpegxl": "JPEG XL", "jpegxr": "JPEG XR", "jpegls": "JPEG-LS", "qoi": "QOI"}[name]
    assert bad.code == "undecodable" and bad.detail.startswith(expected)


@pytest.mark.parametrize("marker", [0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF])
def test_jpegs_of_rare_kinds(marker: int) -> None:
    data = jpeg()
    at = data.index(b"\xff\xc0")
    bad = refused(data[: at + 1] + bytes([marker]) + data[at + 2 :])
    assert bad.code == "undecodable" and "JPEG" in bad.detail


def test_jpegs_of_12_bits() -> None:
    for recipe in (Recipe(), Recipe(depth="scale"), Recipe(deep=("scale",))):
        found = refused(jpeg_12_bits(), recipe)
        assert (found.code, "JPEG of 12 bits" in found.detail) == ("undecodable", True)


def test_lossless_jpegs_are_read() -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    data = imagecodecs.jpeg8_encode(scene(16, 16), lossless=True)
    try:
        shown = picture_here(data, sniff(data, Recipe(), Limits()), Recipe())
    except BadImage as bad:  # a libjpeg before 3
        assert bad.code == "undecodable"
    else:
        assert np.array_equal(np.asarray(shown), scene(16, 16))
