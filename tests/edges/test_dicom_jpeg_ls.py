"""JPEG-LS in DICOM, against the same pictures by SimpleITK; damaged and oversized streams are named."""

import io
from pathlib import Path

import numpy as np
import pytest

from engine.decode import Limits, pillow
from engine.decode.formats import dicom
from engine.decode.formats.sniff import sniff
from engine.errors import BadImage
from engine.recipes import Recipe
from tests.dicom_packages import EXTRA, only

pydicom = pytest.importorskip("pydicom")

FOLDER = Path(__file__).parents[1] / "data/edges/dicom-jpeg-ls"
SCALE = Recipe(depth="scale")


def shown(data: bytes, recipe: Recipe = SCALE) -> np.ndarray:
    return np.asarray(dicom.picture(data, sniff(data, recipe, Limits()), recipe))


@pytest.mark.parametrize(("name", "bits"), [("jpegls", 12), ("jpegls8", 8)])
def test_files(name: str, bits: int) -> None:
    """With what the extra installs."""
    sitk = pytest.importorskip("SimpleITK")
    truth = sitk.GetArrayFromImage(sitk.ReadImage(FOLDER / f"{name}.dcm"))[0].astype(np.float64)
    with only(*EXTRA):
        found = shown((FOLDER / f"{name}.dcm").read_bytes())
    np.testing.assert_array_equal(found, np.rint(truth * 255 / (2**bits - 1)))


def test_near_lossless() -> None:
    """Within the two levels of 4095 that the stream allows itself, also where that leads out of the range."""
    coded = pydicom.dcmread(FOLDER / "jpegls_near.dcm").pixel_array
    exact = pydicom.dcmread(FOLDER / "jpegls.dcm").pixel_array
    assert coded.max() > 4095
    data = (FOLDER / "jpegls_near.dcm").read_bytes()
    with only(*EXTRA):
        found = shown(data)
    np.testing.assert_allclose(found, exact * 255.0 / 4095, atol=2 * 255 / 4095 + 0.5)
    np.testing.assert_array_equal(found, np.rint(coded.clip(0, 4095) * 255.0 / 4095))


def test_an_excess_beyond_the_stated_error_is_not_clipped() -> None:
    data = (FOLDER / "jpegls_near.dcm").read_bytes()
    at = data.index(b"\xff\xda") + 7
    assert data[at] == 2
    with pytest.raises(BadImage, match=r"depth: samples of \d+ to \d+, not of 0 to 4095"):
        shown(data[:at] + b"\1" + data[at + 1 :])


def test_in_a_child_process() -> None:
    data = (FOLDER / "jpegls.dcm").read_bytes()
    there = pillow.picture(data, sniff(data, SCALE, Limits()), SCALE)
    np.testing.assert_array_equal(np.asarray(there), shown(data))


def _around(stream: bytes) -> bytes:
    dataset = pydicom.dcmread(FOLDER / "jpegls8.dcm")
    dataset.PixelData = pydicom.encaps.encapsulate([stream])
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def _stream() -> bytes:
    return pydicom.encaps.get_frame(pydicom.dcmread(FOLDER / "jpegls8.dcm").PixelData, 0, number_of_frames=1)


def _sized(height: int, width: int) -> bytes:
    stream = bytearray(_stream())
    at = stream.index(b"\xff\xf7") + 5
    stream[at : at + 4] = height.to_bytes(2) + width.to_bytes(2)
    return bytes(stream)


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (lambda: _stream()[: len(_stream()) // 2], "truncated: its JPEG-LS data stop without an end marker"),
        (lambda: _stream()[:3], "truncated: its JPEG data end within a header segment"),
        (
            lambda: _sized(65000, 65000),
            "corrupt: its header says 290 x 250 pixels, its coded picture 65000 x",
        ),
        (lambda: _sized(0, 290), "undecodable: JPEG-LS that states its size outside"),
        (lambda: _sized(120, 290), "corrupt: JPEG-LS Lossless Image Compression: pydicom"),
    ],
    ids=["half", "stump", "too large", "no height", "smaller"],
)
def test_bad_streams(stream: object, reason: str) -> None:
    with pytest.raises(BadImage) as caught:
        shown(_around(stream()))  # type: ignore[operator]
    assert str(caught.value).startswith(reason)
    assert not caught.value.pending


def test_without_a_plug_in() -> None:
    with (
        only(),
        pytest.raises(BadImage, match=r"needs_package.*JPEG-LS.*pip install 'embank\[dicom\]'") as caught,
    ):
        shown((FOLDER / "jpegls8.dcm").read_bytes())
    assert caught.value.pending
