"""Which package decodes what, named so that it helps; and samples wherever their bits lie."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.decode import ImageSource, Limits, make_decoder
from engine.decode.formats import dicom
from engine.decode.formats.sniff import sniff
from engine.embed.inputs import no_longer_pending
from engine.errors import BadImage
from engine.recipes import Recipe
from tests.corpus.images import depth_ramp, dicom_around, png, written
from tests.corpus.images import dicom as made
from tests.dicom_packages import EXTRA, PLUGINS, only

pydicom = pytest.importorskip("pydicom")

SHIPPED = Path(pydicom.__file__).parent / "data/test_files"
SCALE = Recipe(depth="scale")
#: A file of each syntax that Pillow does not decode.
CODED = {
    "JPEG Extended": "JPGExtended",
    "JPEG Lossless, Non-Hierarchical, First-Order": "SC_rgb_jpeg_gdcm",
    "JPEG Lossless, Non-Hierarchical (": "SC_rgb_jpeg_gdcm",  # the same stream, called by the general name
    "JPEG-LS Lossless": "MR_small_jpeg_ls_lossless",
    "JPEG-LS Lossy": "SC_rgb_jls_lossy_line",
}
RECIPE = Recipe(depth="window", window=(0, 4095))


def shown(data: bytes, recipe: Recipe = RECIPE) -> np.ndarray:
    return np.asarray(dicom.picture(data, sniff(data, recipe, Limits()), recipe))


def shipped(name: str) -> bytes:
    return (SHIPPED / f"{name}.dcm").read_bytes()


def requirement(package: str) -> list[str]:
    """What pip installs for it."""
    return list(EXTRA) if package == "embank[dicom]" else [package]


@pytest.mark.parametrize("syntax", CODED)
def test_the_package_that_is_named_helps(syntax: str) -> None:
    pytest.importorskip("libjpeg")
    data = shipped(CODED[syntax])
    if syntax.endswith("("):
        data = data.replace(b"1.2.840.10008.1.2.4.70", b"1.2.840.10008.1.2.4.57")
    complete = shown(data)
    with (
        only(),
        pytest.raises(
            BadImage, match=f"^needs_package: its pixels are coded as {re.escape(syntax)}"
        ) as caught,
    ):
        sniff(data, RECIPE, Limits())
    assert caught.value.pending
    command = re.fullmatch(r".*\(1\.2\.840\.[\d.]+\): pip install (.+)", caught.value.detail)
    assert command is not None
    packages = [one for word in command[1].split() for one in requirement(word.strip("'"))]
    assert set(packages) <= set(PLUGINS)
    with only(*packages):
        np.testing.assert_array_equal(shown(data), complete)


def test_12_bit_jpeg_needs_more_than_the_extra_and_gdcm() -> None:
    """GDCM and Pillow say that they decode its syntax, and do so for 8 bits only."""
    with (
        only(*EXTRA, "python-gdcm"),
        pytest.raises(BadImage, match=r"needs_package.*pip install pylibjpeg pylibj"),
    ):
        sniff(shipped("JPGExtended"), SCALE, Limits())
    with only():
        eight = dicom_around(written(depth_ramp(255).astype(np.uint8), "JPEG"), "1.2.840.10008.1.2.4.51", 8)
        assert np.ptp(shown(eight)) > 200


def test_deep_colour_of_jpeg_2000_is_not_left_to_pillow() -> None:
    """It would make 8 bits of them."""
    dataset = pydicom.dcmread(io.BytesIO(dicom_around(bytes(9), "1.2.840.10008.1.2.4.90", 16)))
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    out = io.BytesIO()
    dataset.save_as(out)
    with only(), pytest.raises(BadImage, match=r"needs_package.*pip install 'embank\[dicom\]'"):
        sniff(out.getvalue(), SCALE, Limits())
    assert sniff(out.getvalue(), SCALE, Limits()).bits == 16


def test_lossy_jpeg_is_the_same_whatever_is_installed() -> None:
    """pylibjpeg's decoder is up to three levels off the others."""
    pytest.importorskip("libjpeg")
    data = shipped("SC_rgb_jpeg_lossy_gdcm")
    found = []
    for packages in ([], EXTRA, ["pylibjpeg", "pylibjpeg-libjpeg"], ["python-gdcm"]):
        with only(*packages):
            found.append(shown(data))
    assert all(np.array_equal(found[0], other) for other in found[1:])


def test_a_broken_plug_in_is_the_machines_fault() -> None:
    with only("pylibjpeg"), pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "pydicom.pixels", None)
        with pytest.raises(
            BadImage, match=r"needs_package: pydicom: .*pip install 'embank\[dicom\]'"
        ) as caught:
            sniff(shipped("CT_small"), RECIPE, Limits())
    assert caught.value.pending


@pytest.mark.slow
def test_the_row_is_tried_again_once_the_package_is_there(tmp_path: Path) -> None:
    """By the steps of the same command: a pending row is decoded again when nothing stands in its way."""
    pytest.importorskip("libjpeg")
    (tmp_path / "a.dcm").write_bytes(shipped("JPGExtended"))
    (tmp_path / "b.png").write_bytes(png())
    source = ImageSource(tmp_path, ["a.dcm", "b.png"])
    with make_decoder("reference", SCALE, device="cpu", threads=1, batch_size=2) as decoder:
        with only(*EXTRA):
            (batch,) = decoder.stream(source, [[0, 1]])
            assert {slot: (bad.code, bad.pending) for slot, bad in batch.failures.items()} == {
                0: ("needs_package", True)
            }
            assert no_longer_pending(source, SCALE, [0]) == []
        assert no_longer_pending(source, SCALE, [0]) == [0]
        (batch,) = decoder.stream(source, [[0, 1]])
    assert not batch.failures and batch.pixels[0].any()


def moved(stored: np.ndarray, bits: int, high: int, **tags: Any) -> bytes:
    """Samples whose highest stored bit is `high`, every other bit of their cells set."""
    cells = stored.astype(np.uint16) & np.uint16(2**bits - 1)
    rest = np.uint16(0xFFFF ^ ((2**bits - 1) << (high + 1 - bits)))
    return made((cells << np.uint16(high + 1 - bits)) | rest, 16, BitsStored=bits, HighBit=high, **tags)


@pytest.mark.parametrize(("bits", "high"), [(12, 11), (12, 15), (10, 12), (9, 14)])
@pytest.mark.parametrize("syntax", ["", "1.2.840.10008.1.2.5"])
def test_samples_lie_where_the_header_says(bits: int, high: int, syntax: str) -> None:
    stored = depth_ramp(2**bits - 1)
    data = moved(stored, bits, high)
    if syntax:
        dataset = pydicom.dcmread(io.BytesIO(data))
        dataset.compress(syntax, generate_instance_uid=False)
        out = io.BytesIO()
        dataset.save_as(out)
        data = out.getvalue()
    np.testing.assert_array_equal(shown(data, SCALE), np.rint(stored * 255.0 / (2**bits - 1)))


@pytest.mark.parametrize("high", [11, 14])
def test_signed_samples_lie_where_the_header_says(high: int) -> None:
    values = depth_ramp(4095).astype(np.int32) - 2048
    data = moved(values.astype(np.int16).view(np.uint16), 12, high, PixelRepresentation=1)
    recipe = Recipe(depth="window", window=(-2048, 2047))
    np.testing.assert_array_equal(shown(data, recipe), np.rint((values + 2048) * 255.0 / 4095))


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        (
            {"HighBit": 10},
            "corrupt: its DICOM header is impossible: 12 bits stored of 16 allocated, the highest at 10",
        ),
        ({"HighBit": 16}, "corrupt: its DICOM header is impossible"),
        ({"BitsStored": 17, "HighBit": 16}, "corrupt: its DICOM header is impossible"),
        ({"BitsStored": 0, "HighBit": 0}, "corrupt: its DICOM header is impossible"),
        ({"BitsAllocated": 12}, "undecodable: DICOM of 12 bits allocated a sample"),
        ({"BitsAllocated": 24}, "undecodable: DICOM of 24 bits allocated a sample"),
        ({"BitsStored": None}, "corrupt: a DICOM header without BitsStored"),
        ({"PhotometricInterpretation": "ARGB"}, "undecodable: DICOM of photometric interpretation 'ARGB'"),
        ({"PhotometricInterpretation": "RGB"}, "corrupt: its header and its data, of shape"),
        ({"PhotometricInterpretation": "YBR_FULL"}, "undecodable: DICOM of YBR_FULL with 12 bits a sample"),
    ],
)
def test_impossible_headers_are_named(tags: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadImage) as caught:
        shown(made(depth_ramp(4095), 12, **tags), SCALE)
    assert str(caught.value).startswith(reason)


def test_moved_bits_of_a_coded_picture_are_refused() -> None:
    dataset = pydicom.dcmread(SHIPPED / "MR_small_jp2klossless.dcm")
    dataset.BitsStored = 12
    out = io.BytesIO()
    dataset.save_as(out)
    with pytest.raises(BadImage, match="undecodable: coded DICOM whose stored bits begin at bit 4"):
        shown(out.getvalue())


@pytest.mark.parametrize("keyword", ["YBR_RCT", "YBR_ICT"])
def test_colours_that_the_syntax_does_not_have_are_refused(keyword: str) -> None:
    """pydicom would hand them on as if they were RGB."""
    data = made(np.zeros((4, 5, 3), np.uint8), PhotometricInterpretation=keyword)
    with pytest.raises(BadImage, match=f"undecodable: {keyword} coded as Explicit VR Little Endian"):
        shown(data)


@pytest.mark.parametrize("planes", [0, 1])
@pytest.mark.parametrize("bits", [12, 16, 32])
def test_deep_colour(bits: int, planes: int) -> None:
    kind = np.uint16 if bits <= 16 else np.uint32
    samples = np.random.default_rng(bits).integers(0, 2**bits, (7, 9, 3), dtype=kind)
    dataset = pydicom.dcmread(io.BytesIO(made(samples.astype(np.uint16), min(bits, 16))))
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 * kind().itemsize, bits, bits - 1
    dataset.PlanarConfiguration = planes
    dataset.PixelData = (samples.transpose(2, 0, 1) if planes else samples).tobytes()
    out = io.BytesIO()
    dataset.save_as(out)
    data, values = out.getvalue(), samples.astype(np.float64)
    np.testing.assert_array_equal(shown(data, SCALE), np.rint(values * 255 / (2**bits - 1)))
    low, high = 2.0 ** (bits - 2), 2.0 ** (bits - 1)
    window = np.rint(((values - low) * 255 / (high - low)).clip(0, 255))
    np.testing.assert_array_equal(shown(data, Recipe(depth="window", window=(low, high))), window)
    with pytest.raises(
        BadImage, match="depth: a DICOM window is of grey images, not of colour; use scale or"
    ):
        shown(data, Recipe(depth="voi"))
