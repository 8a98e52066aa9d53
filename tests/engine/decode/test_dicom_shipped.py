"""Every DICOM file that pydicom ships: shown as pydicom's own functions show it, or refused by name.

The windows to 8 bits are reckoned here, in float64, from the range that pydicom maps to.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.decode import Limits, pillow
from engine.decode.formats.sniff import sniff
from engine.decode.protocol import FAILURE_CODES
from engine.errors import BadImage
from engine.recipes import Recipe

pydicom = pytest.importorskip("pydicom")

ROOT = Path(pydicom.__file__).parent / "data"
FILES = {
    str(path.relative_to(ROOT)): path.read_bytes()
    for path in sorted(ROOT.rglob("*"))
    if path.is_file() and path.read_bytes()[128:132] == b"DICM"
}
#: Single-frame files that pydicom decodes with its plug-ins, in the package of 3.0.2.
SINGLE = 94
#: Files with pixels that pydicom does not decode either, and why embank says it does not.
DAMAGED = {
    "JPEG-lossy.dcm": "corrupt: JPEG Extended",
    "JPEG2000-embedded-sequence-delimiter.dcm": "corrupt: its header says 256 x 1024 pixels",
    "MR_truncated.dcm": "truncated: Explicit VR Little Endian",
    "badVR.dcm": "corrupt: its DICOM header is invalid",
    "rtplan_truncated.dcm": "truncated: DICOM that ends before its pixels",
    "meta_missing_tsyntax.dcm": "corrupt: a DICOM header without Columns",
    "nested_priv_SQ.dcm": "corrupt: a DICOM header without Columns",
}


def shown(data: bytes, recipe: Recipe) -> np.ndarray:
    return np.asarray(pillow.picture_here(data, sniff(data, recipe, Limits()), recipe))


def opened(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(ROOT / name)
        try:
            return dataset, dataset.pixel_array
        except Exception:  # damaged files raise nearly anything
            return dataset, None


def stored_range(dataset: Any) -> tuple[float, float]:
    bits = dataset.BitsStored
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dataset.PixelRepresentation else (0, 2**bits - 1)


def expected(dataset: Any, samples: np.ndarray) -> tuple[Recipe, np.ndarray]:
    """A recipe that shows the file, and its pixels in unrounded levels of 255."""
    kind, (low, high) = dataset.PhotometricInterpretation, stored_range(dataset)
    if kind == "PALETTE COLOR":
        colours = pydicom.pixels.apply_color_lut(samples, dataset).astype(np.float64)
        return Recipe(), colours * 255 / (2 ** dataset.RedPaletteColorLookupTableDescriptor[2] - 1)
    if samples.ndim == 3 or (dataset.BitsStored <= 8 and "WindowWidth" not in dataset):
        return Recipe(depth="scale"), samples.astype(np.float64) * 255 / high
    values = pydicom.pixels.apply_modality_lut(samples, dataset).astype(np.float64)
    if "WindowWidth" in dataset:
        slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
        low, high = low * slope + intercept, high * slope + intercept
        recipe, values = Recipe(depth="voi"), pydicom.pixels.apply_voi_lut(values, dataset)
    else:
        low, high = values.min() + 0.1 * np.ptp(values), values.max() - 0.2 * np.ptp(values)
        recipe, values = Recipe(depth="window", window=(low, high)), values.clip(low, high)
    levels = (values - low) * 255 / (high - low)
    return recipe, 255 - levels if kind == "MONOCHROME1" else levels


def test_they_are_shown_as_pydicom_shows_them() -> None:
    pytest.importorskip("libjpeg")  # of the extra for tests; without, fewer are decoded
    equal, other = 0, {}
    for name, data in FILES.items():
        dataset, samples = opened(name)
        if samples is None or int(dataset.get("NumberOfFrames") or 1) > 1:
            continue
        recipe, levels = expected(dataset, samples)
        try:
            found = shown(data, recipe)
        except BadImage as bad:
            other[name] = str(bad)
            continue
        if found.shape == levels.shape and np.abs(found - levels).max() <= 0.5 + 1e-6:
            equal += 1
        else:
            other[name] = "other pixels"
    assert other == {}
    assert equal >= SINGLE - 3
    if pydicom.__version__ == "3.0.2":
        assert equal == SINGLE


def test_the_others_are_refused_by_name(recwarn: pytest.WarningsRecorder) -> None:
    """No warning of pydicom is seen on the way."""
    refused = {}
    for name, data in FILES.items():
        dataset, samples = opened(name)
        if samples is not None and int(dataset.get("NumberOfFrames") or 1) == 1:
            continue
        with pytest.raises(BadImage) as caught:
            shown(data, Recipe(depth="voi"))
        code = "multi_frame" if samples is not None else "no_pixels"
        start = DAMAGED.get(Path(name).name, f"{code}: DICOM")
        assert str(caught.value).startswith(start), name
        assert len(caught.value.detail) < 200 and not caught.value.pending
        refused[name] = caught.value.code
    assert set(refused.values()) <= set(FAILURE_CODES)
    assert len(refused) >= 90
    assert [str(warning.message) for warning in recwarn if "pydicom" in warning.filename] == []


@pytest.mark.parametrize(
    "name",
    ["CT_small", "MR_small", "MR_small_RLE", "MR_small_bigendian", "MR_small_jpeg_ls_lossless",
     "MR_small_jp2klossless", "J2K_pixelrep_mismatch", "image_dfl", "SC_rgb_jpeg_gdcm"],
)  # fmt: skip
def test_simpleitk_reads_the_same_values(name: str) -> None:
    """It decodes with GDCM, and applies the rescale."""
    sitk = pytest.importorskip("SimpleITK")
    values = np.squeeze(sitk.GetArrayFromImage(sitk.ReadImage(ROOT / f"test_files/{name}.dcm"))).astype(
        np.float64
    )
    low, high = float(values.min()), float(values.max())
    data = FILES[f"test_files/{name}.dcm"]
    deep = sniff(data, Recipe(depth="voi"), Limits()).deep
    recipe = Recipe(depth="window", window=(low, high)) if deep else Recipe()
    levels = (values - low) * 255 / (high - low) if deep else values
    assert np.ptp(levels) > 100
    np.testing.assert_allclose(shown(data, recipe), levels, atol=0.5 + 1e-6)
