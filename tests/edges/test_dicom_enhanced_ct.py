"""Rescale, window and VOI LUT of enhanced DICOM, in the functional groups: shared, then of the frame."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.decode import Limits, pillow
from engine.decode.formats.sniff import sniff
from engine.errors import BadImage
from engine.recipes import Recipe

pydicom = pytest.importorskip("pydicom")

FOLDER = Path(__file__).parents[1] / "data/edges/dicom-enhanced-ct"
LUNG, VOI = Recipe(depth="window", window=(-1000, 400)), Recipe(depth="voi")


def shown(data: bytes, recipe: Recipe) -> np.ndarray:
    return np.asarray(pillow.picture_here(data, sniff(data, recipe, Limits()), recipe))


def changed(edit: Any) -> bytes:
    dataset = pydicom.dcmread(FOLDER / "enhanced_ct.dcm")
    edit(dataset)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def hounsfield() -> np.ndarray:
    return pydicom.dcmread(FOLDER / "classic_ct.dcm").pixel_array.astype(np.float64) - 1024


def linear(low: float, high: float) -> np.ndarray:
    return np.rint(((hounsfield() - low) * 255 / (high - low)).clip(0, 255))


def test_the_rescale_is_found() -> None:
    enhanced, classic = ((FOLDER / f"{name}_ct.dcm").read_bytes() for name in ("enhanced", "classic"))
    np.testing.assert_array_equal(shown(enhanced, LUNG), shown(classic, LUNG))
    np.testing.assert_array_equal(shown(enhanced, LUNG), linear(-1000, 400))


def test_the_window_is_found() -> None:
    """-300/1401: C.11.2.1.2.1 maps -1000.5 to 399.5."""
    np.testing.assert_array_equal(
        shown((FOLDER / "enhanced_ct.dcm").read_bytes(), VOI), linear(-1000.5, 399.5)
    )


def test_simpleitk_reads_the_same_values(tmp_path: Path) -> None:
    """It looks into the functional groups of files that say they are Enhanced CT."""
    sitk = pytest.importorskip("SimpleITK")
    data = changed(lambda dataset: setattr(dataset, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.2.1"))
    (tmp_path / "a.dcm").write_bytes(data)
    image = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "a.dcm"))[0].astype(np.float64)
    np.testing.assert_array_equal(image, hounsfield())


def _to_the_frame(dataset: Any) -> None:
    dataset.PerFrameFunctionalGroupsSequence = dataset.SharedFunctionalGroupsSequence
    del dataset.SharedFunctionalGroupsSequence


def _split(dataset: Any) -> None:
    """The rescale is shared, the window the frame's."""
    frame, shared = pydicom.Dataset(), dataset.SharedFunctionalGroupsSequence[0]
    frame.FrameVOILUTSequence = shared.FrameVOILUTSequence
    del shared.FrameVOILUTSequence
    dataset.PerFrameFunctionalGroupsSequence = [frame]


def _said_above(dataset: Any) -> None:
    """What the groups say of the frame counts, not a rescale and a window above them."""
    dataset.RescaleSlope, dataset.RescaleIntercept = 2, 7
    dataset.WindowCenter, dataset.WindowWidth = 9, 9


def _twice(dataset: Any) -> None:
    dataset.PerFrameFunctionalGroupsSequence = dataset.SharedFunctionalGroupsSequence


def _several_windows(dataset: Any) -> None:
    item = dataset.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence[0]
    item.WindowCenter, item.WindowWidth = [-300, 40], [1401, 80]


@pytest.mark.parametrize("edit", [_to_the_frame, _split, _said_above, _twice, _several_windows])
def test_wherever_they_stand(edit: Any) -> None:
    data = changed(edit)
    np.testing.assert_array_equal(shown(data, LUNG), linear(-1000, 400))
    np.testing.assert_array_equal(shown(data, VOI), linear(-1000.5, 399.5))


def test_the_functions_word_is_the_groups() -> None:
    def exact(dataset: Any) -> None:
        item = dataset.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence[0]
        item.VOILUTFunction, item.WindowWidth = "LINEAR_EXACT", 1400

    np.testing.assert_array_equal(shown(changed(exact), VOI), linear(-1000, 400))


def test_a_voi_table_in_the_groups() -> None:
    """Entries of 8 bits for -1000 to 399 Hounsfield units."""

    def table(dataset: Any) -> None:
        lut = pydicom.Dataset()
        lut.add_new("LUTDescriptor", "SS", [1400, -1000, 8])
        lut.add_new("LUTData", "OW", (np.arange(1400) * 255 // 1399).astype("<u2").tobytes())
        item = pydicom.Dataset()
        item.VOILUTSequence = [lut]
        dataset.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence = [item]

    expected = (hounsfield().clip(-1000, 399) + 1000).astype(int) * 255 // 1399
    assert np.ptp(expected) > 100
    np.testing.assert_array_equal(shown(changed(table), VOI), expected)


def test_contradicting_groups_are_refused() -> None:
    def contradict(dataset: Any) -> None:
        frame, item = pydicom.Dataset(), pydicom.Dataset()
        item.RescaleSlope, item.RescaleIntercept = 1, 0
        frame.PixelValueTransformationSequence = [item]
        dataset.PerFrameFunctionalGroupsSequence = [frame]

    with pytest.raises(BadImage, match=r"corrupt.*PixelValueTransformationSequence contradict"):
        shown(changed(contradict), LUNG)


def test_no_window_is_said() -> None:
    def none(dataset: Any) -> None:
        del dataset.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence

    with pytest.raises(BadImage, match="no window or VOI LUT in the file; `embank embed --deep scale`"):
        shown(changed(none), VOI)
    shown(changed(none), Recipe(depth="scale"))
