"""Tables, rescales, palettes and samples of floats, against the standard's words in numpy, and pydicom."""

import io
from typing import Any

import numpy as np
import pytest

from engine.decode import Limits
from engine.decode.formats import dicom
from engine.decode.formats.sniff import sniff
from engine.errors import BadImage
from engine.recipes import Recipe
from tests.corpus.images import depth_ramp, scene
from tests.corpus.images import dicom as made

pydicom = pytest.importorskip("pydicom")

VOI = Recipe(depth="voi")
RAMP = depth_ramp(4095)


def shown(data: bytes, recipe: Recipe = VOI) -> np.ndarray:
    return np.asarray(dicom.picture(data, sniff(data, recipe, Limits()), recipe))


def saved(dataset: Any) -> bytes:
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def lut(entries: np.ndarray, first: int, bits: int, data: Any = None) -> Any:
    """An item with a lookup table, its entries in words unless given otherwise."""
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) % 65536, first, bits])
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes() if data is None else data)
    return item


@pytest.mark.parametrize("packed", [False, True])
def test_voi_table_of_8_bits_is_longer_than_256_entries(packed: bool) -> None:
    """pydicom counts entries in the type of an entry, and starts anew after 256."""
    table = np.arange(4096) * 255 // 4095
    item = lut(table, 0, 8, table.astype(np.uint8).tobytes() if packed else None)
    np.testing.assert_array_equal(shown(made(RAMP, 12, VOILUTSequence=[item])), table[RAMP])


def test_modality_table_of_12_bits_of_bytes() -> None:
    """256 entries of 12 bits, from sample 10 on; below and beyond, the first and the last entry."""
    ramp = np.arange(256, dtype=np.uint8).reshape(8, 32)
    table = np.arange(200)[::-1] * 20
    data = made(ramp, WindowCenter=2000, WindowWidth=4000, VOILUTFunction="LINEAR_EXACT")
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.ModalityLUTSequence = [lut(table, 10, 12)]
    values = table[(ramp.astype(int) - 10).clip(0, 199)]
    np.testing.assert_array_equal(shown(saved(dataset)), np.rint(values * 255 / 4000))


def test_modality_table_of_signed_samples_far_below_nought() -> None:
    """30000 - (-30000) does not fit into 16 bits."""
    values = np.array([[-30000, -29999, 0, 30000, 32767]], np.int16)
    table = np.arange(60001) % 1000
    data = made(values, 16, WindowCenter=500, WindowWidth=1000, VOILUTFunction="LINEAR_EXACT")
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.ModalityLUTSequence = [lut(table, -30000, 16)]
    expected = np.rint(table[[0, 1, 30000, 60000, 60000]] * 255 / 1000)
    np.testing.assert_array_equal(shown(saved(dataset))[0], expected)


@pytest.mark.parametrize(
    "item",
    [
        lambda: lut(np.arange(100), 0, 12, bytes(90)),
        lambda: lut(np.arange(300), 0, 8),  # beyond its bits
        lambda: lut(np.arange(100), 0, 17),
        lambda: pydicom.Dataset(),
    ],
)
def test_tables_that_are_not_as_described(item: Any) -> None:
    with pytest.raises(BadImage, match="corrupt: its DICOM window or VOI LUT is invalid"):
        shown(made(RAMP, 12, VOILUTSequence=[item()]))


@pytest.mark.parametrize(
    ("tags", "values"),
    [
        ({"RescaleSlope": 2, "RescaleIntercept": -1024}, RAMP * 2.0 - 1024),
        ({"RescaleSlope": 1}, RAMP),
        ({"RescaleIntercept": 0}, RAMP),
        ({"RescaleSlope": "", "RescaleIntercept": ""}, RAMP),
        ({"RescaleSlope": 2}, None),
        ({"RescaleIntercept": -1024}, None),
        ({"RescaleSlope": 2, "RescaleIntercept": ""}, None),
    ],
)
def test_a_rescale_is_whole_or_refused(tags: dict[str, Any], values: np.ndarray | None) -> None:
    data, recipe = made(RAMP, 12, **tags), Recipe(depth="window", window=(-1024, 7166))
    if values is None:
        with pytest.raises(BadImage, match="corrupt: a DICOM rescale slope or intercept without the other"):
            shown(data, recipe)
    else:
        np.testing.assert_array_equal(shown(data, recipe), np.rint((values + 1024.0) * 255 / 8190))


def coloured(indices: np.ndarray, first: int, bits: int, segmented: bool = False, **tags: Any) -> Any:
    """PALETTE COLOR of 256 entries; segmented: a few plain ones and two lines."""
    dataset = pydicom.dcmread(io.BytesIO(made(indices, 8 * indices.itemsize)))
    dataset.PhotometricInterpretation = "PALETTE COLOR"
    kind, most = ("<u2", 65535) if bits == 16 else ("u1", 255)
    for i, name in enumerate(("Red", "Green", "Blue")):
        dataset.add_new(
            f"{name}PaletteColorLookupTableDescriptor", "SS" if first < 0 else "US", [256, first, bits]
        )
        table = (np.arange(256) * (i + 1) * most // 255) % (most + 1)
        if segmented:
            table = np.array([0, 6, 9, 0, most, 3, 7, i, 1, 100, most // 2 + i, 1, 150, 3])
        keyword = f"{'Segmented' if segmented else ''}{name}PaletteColorLookupTableData"
        dataset.add_new(keyword, "OW", table.astype(kind).tobytes())
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


@pytest.mark.parametrize("segmented", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("kind", "first"), [(np.uint8, 0), (np.uint8, 20), (np.int8, -100)])
def test_palettes_are_those_of_pydicom(bits: int, kind: Any, first: int, segmented: bool) -> None:
    indices = np.arange(256, dtype=np.uint8).view(kind).reshape(8, 32)
    dataset = coloured(indices, first, bits, segmented)
    colours = pydicom.pixels.apply_color_lut(dataset.pixel_array, dataset).astype(np.float64)
    for recipe in (Recipe(), Recipe(depth="scale"), Recipe(depth="window", window=(0, 9)), VOI):
        np.testing.assert_array_equal(shown(saved(dataset), recipe), np.rint(colours * 255 / (2**bits - 1)))


def test_indices_of_16_bits_into_colours_of_8() -> None:
    """pydicom counts them in the type of an entry, and starts anew after 256."""
    indices = np.array([[0, 100, 255, 256, 300, 4000]], np.uint16)
    dataset = coloured(indices, 0, 8)
    expected = np.arange(256)[indices.clip(0, 255)]
    np.testing.assert_array_equal(shown(saved(dataset))[:, :, 0], expected)


def test_palettes_that_are_missing_or_unknown() -> None:
    indices = np.arange(256, dtype=np.uint8).reshape(8, 32)
    for name in ("BluePaletteColorLookupTableData", "GreenPaletteColorLookupTableDescriptor"):
        dataset = coloured(indices, 0, 8)
        delattr(dataset, name)
        with pytest.raises(BadImage, match="corrupt: its DICOM palette is missing or invalid"):
            shown(saved(dataset))
    dataset = coloured(indices, 0, 16, True)
    dataset.SegmentedRedPaletteColorLookupTableData = np.array([0, 1, 9, 2, 1, 0, 0], "<u2").tobytes()
    with pytest.raises(BadImage, match="undecodable: a DICOM palette with segments of kind 2"):
        shown(saved(dataset))
    grey = coloured(indices, 0, 8, PhotometricInterpretation="MONOCHROME2", PixelPresentation="COLOR")
    with pytest.raises(BadImage, match="undecodable: DICOM of grey samples with a supplemental palette"):
        shown(saved(grey))


def floats(values: np.ndarray, **tags: Any) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(made(scene(*values.shape, channels=1))))
    for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(dataset, name)
    dataset.BitsAllocated = 8 * values.itemsize
    setattr(dataset, "FloatPixelData" if values.itemsize == 4 else "DoubleFloatPixelData", values.tobytes())
    for name, value in tags.items():
        setattr(dataset, name, value)
    return saved(dataset)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_float_pixel_data(kind: Any) -> None:
    values = np.linspace(-1.5, 2.5, 600).reshape(20, 30).astype(kind)
    recipe, exact = Recipe(depth="window", window=(-1, 2)), values.astype(np.float64)
    np.testing.assert_array_equal(shown(floats(values), recipe), np.rint(((exact + 1) * 85).clip(0, 255)))
    windowed = floats(values, WindowCenter=0.5, WindowWidth=3, VOILUTFunction="LINEAR_EXACT")
    np.testing.assert_array_equal(shown(windowed), np.rint(((exact + 1) * 85).clip(0, 255)))
    for bad, other, reason in (
        (values, Recipe(), "depth: float samples"),
        (values, Recipe(depth="scale"), "depth: float samples have no full range to scale"),
        (values, VOI, "depth: no window or VOI LUT in the file; use depth window$"),
        (values * np.nan, recipe, "corrupt: samples that are not finite"),
    ):
        with pytest.raises(BadImage, match=f"^{reason}"):
            shown(floats(bad), other)


def test_what_a_signed_file_without_a_window_is_told_works() -> None:
    data = made(scene(channels=1).astype(np.int16), 16)
    with pytest.raises(BadImage, match=r"no window or VOI LUT in the file; use depth window$"):
        shown(data)
    np.testing.assert_array_equal(shown(data, Recipe(depth="window", window=(0, 255))), scene(channels=1))
