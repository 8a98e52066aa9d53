"""DICOM's windows and tables against the standard's formulas and pydicom's own functions, in float64."""

import builtins
import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.decode import ImageSource, Limits, make_decoder
from engine.decode.bit_depth import levels
from engine.decode.formats import dicom, dicom_display
from engine.decode.formats.sniff import sniff
from engine.errors import BadImage
from engine.recipes import Recipe
from tests.corpus.images import depth_ramp, png
from tests.corpus.images import dicom as written

pydicom = pytest.importorskip("pydicom")

VOI = Recipe(depth="voi")


def pixels(data: bytes, recipe: Recipe = VOI) -> np.ndarray:
    header = sniff(data, recipe, Limits())
    return np.asarray(dicom.picture(data, header, recipe))


def by_pydicom(data: bytes) -> np.ndarray:
    """pydicom's modality and VOI transforms; they map to the range of the stored type, here of 12 bits."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    values = pydicom.pixels.apply_modality_lut(dataset.pixel_array, dataset)
    shown = pydicom.pixels.apply_voi_lut(values, dataset).astype(np.float64)
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    low, high = intercept, 4095 * slope + intercept
    return (shown - low) * 255 / (high - low)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
@pytest.mark.parametrize("rescale", [(1, 0), (1, -1024), (0.5, 3)])
def test_windows_are_those_of_pydicom(function: str | None, rescale: tuple[float, float]) -> None:
    slope, intercept = rescale
    tags: dict[str, Any] = {"VOILUTFunction": function} if function else {}
    data = written(
        depth_ramp(4095),
        12,
        RescaleSlope=slope,
        RescaleIntercept=intercept,
        WindowCenter=900,
        WindowWidth=1500,
        **tags,
    )
    expected = by_pydicom(data)
    assert np.ptp(expected) > 100
    np.testing.assert_allclose(pixels(data), expected, atol=0.5 + 1e-9)


@pytest.mark.parametrize("width", [1.0, 2.0, 256.0])
def test_linear_is_the_standards_formula(width: float) -> None:
    """PS3.3 C.11.2.1.2.1, equation by equation."""
    x, centre = np.arange(-300.0, 300.0).reshape(20, 30), 7.0
    with np.errstate(divide="ignore", invalid="ignore"):
        between = ((x - (centre - 0.5)) / (width - 1) + 0.5) * 255
    expected = np.where(x <= centre - 0.5 - (width - 1) / 2, 0, between)
    expected = np.where(x > centre - 0.5 + (width - 1) / 2, 255, expected)
    np.testing.assert_array_equal(dicom_display.window(x, centre, width), np.rint(expected))


@pytest.mark.parametrize(
    ("function", "width"),
    [("LINEAR", 0.5), ("LINEAR_EXACT", 0), ("SIGMOID", -1), ("CUBIC", 9), ("LINEAR", np.nan)],
)
def test_impossible_windows(function: str, width: float) -> None:
    with pytest.raises(BadImage, match="corrupt"):
        dicom_display.window(np.zeros((2, 2)), 0, width, function)


def test_voi_table_is_looked_up() -> None:
    """A table of 4,096 entries of 10 bits, a square root."""
    table = np.rint(np.sqrt(np.arange(4096) / 4095) * 1023).astype(np.uint16)
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "US", [4096, 0, 10])
    item.add_new("LUTData", "US", table.tolist())
    data = written(depth_ramp(4095), 12, VOILUTSequence=[item], WindowCenter=9, WindowWidth=9)
    np.testing.assert_array_equal(pixels(data), np.rint(table[depth_ramp(4095)] * 255.0 / 1023))


def test_first_window_counts() -> None:
    one = written(depth_ramp(4095), 12, WindowCenter=900, WindowWidth=1500)
    two = written(depth_ramp(4095), 12, WindowCenter=[900, 40], WindowWidth=[1500, 80])
    np.testing.assert_array_equal(pixels(one), pixels(two))


def test_eight_bits_follow_a_window_under_voi_alone() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(8, 32)
    data = written(ramp, WindowCenter=128, WindowWidth=64, VOILUTFunction="LINEAR_EXACT")
    for recipe in (Recipe(), Recipe(depth="scale"), Recipe(depth="window", window=(0, 9))):
        np.testing.assert_array_equal(pixels(data, recipe), ramp)
    expected = np.rint(((ramp.astype(np.float64) - 96) * 255 / 64).clip(0, 255))
    np.testing.assert_array_equal(pixels(data), expected)


def test_nothing_is_clipped_unasked() -> None:
    samples = np.array([[0, 4096]], np.uint16)
    with pytest.raises(BadImage, match="depth"):
        levels(samples, 0, 4095, clip=False)
    np.testing.assert_array_equal(levels(samples, 0, 4095, clip=True), [[0, 255]])
    for bits in (9, 12, 16):
        stored = depth_ramp(2**bits - 1)
        found = pixels(written(stored, bits), Recipe(depth="scale"))
        np.testing.assert_array_equal(found, np.rint(stored * 255.0 / (2**bits - 1)))


def test_without_pydicom_the_row_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row is tried again once the package is there; the others do not wait for it."""
    (tmp_path / "a.dcm").write_bytes(written(depth_ramp(4095), 12))
    (tmp_path / "b.png").write_bytes(png())
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "pydicom" else real(name, *rest)
    )
    with make_decoder("turbo", VOI, device="cpu", threads=1, batch_size=2) as decoder:
        (batch,) = decoder.stream(ImageSource(tmp_path, ["b.png", "a.dcm"]), [[0, 1]])
    assert batch.failures.keys() == {1}
    assert (batch.failures[1].code, batch.failures[1].pending) == ("needs_package", True)
    assert "pip install 'embank[dicom]'" in batch.failures[1].detail


def test_other_images_need_no_pydicom(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        assert not name.startswith("pydicom")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert sniff(png(), VOI, Limits()).format == "PNG"
