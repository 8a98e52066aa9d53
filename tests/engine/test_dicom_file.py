"""DICOM up to its pixels: recognised whatever the preamble holds, deflated within bounds, and in silence."""

import io
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.datasets.dicom import index
from engine.decode import Limits, pillow
from engine.decode.formats.sniff import sniff
from engine.errors import BadImage
from engine.recipes import Recipe
from tests.corpus.images import deflated, dicom, png, scene, tiff

pydicom = pytest.importorskip("pydicom")

from engine import dicom_file  # noqa: E402

PLAIN = Recipe()


def shown(data: bytes) -> np.ndarray:
    return np.asarray(pillow.picture_here(data, sniff(data, PLAIN, Limits()), PLAIN))


@pytest.mark.parametrize(
    "start", [b"II*\0", b"MM\0*", b"BM", b"GIF89a", b"\xff\xd8\xff", b"RIFF", png(), tiff(scene())]
)
def test_the_preamble_may_hold_anything(start: bytes) -> None:
    """Two of these make files that are TIFF and DICOM at once."""
    data = start[:128].ljust(128, b"\0") + dicom(scene(channels=1))[128:]
    assert sniff(data, PLAIN, Limits()).format == "DICOM"
    np.testing.assert_array_equal(shown(data), scene(channels=1))


def test_deflated_files_unpack_as_far_as_they_are_read() -> None:
    data = deflated(dicom(scene(channels=1)))
    opened = dicom_file.opened(data)
    size = 250 * 290
    assert opened.pixels == "PixelData" and "PixelData" not in opened.dataset
    assert size < opened.unpacked < size + 1000
    np.testing.assert_array_equal(shown(data), scene(channels=1))
    with pytest.raises(
        BadImage, match=r"too_large: deflated DICOM of \d+ bytes, the limit is 72000"
    ) as caught:
        sniff(data, PLAIN, Limits(max_bytes=72_000))
    assert caught.value.pending


_LARGE = struct.pack("<HH2sHI", 9, 0x1001, b"OB", 0, 1 << 25) + bytes(1 << 25)
_MANY = struct.pack("<HH2sH", 9, 0x1001, b"LO", 0) * 20_000
#: A sequence of unknown length, and empty items.
_ITEMS = (
    struct.pack("<HH2sHI", 9, 0x1001, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 20_000
)


@pytest.mark.parametrize(
    "bomb", [_LARGE, _MANY, _ITEMS, bytes(160_000)], ids=["large", "many", "items", "zeros"]
)
@pytest.mark.parametrize("pack", [deflated, None], ids=["deflated", "plain"])
def test_bombs_cost_little(bomb: bytes, pack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One large element, very many small ones, very many items, and nothing but zeros.

    The true limit on reads is thirty times this, and takes seconds to reach.
    """
    assert dicom_file._MAX_READS == 300_000
    monkeypatch.setattr(dicom_file, "_MAX_READS", 10_000)
    plain = dicom(scene(channels=1))
    if pack is None and bomb is _LARGE:
        return
    at = 144 + struct.unpack_from("<I", plain, 140)[0]
    data = deflated(plain, bomb) if pack else plain[:at] + bomb + plain[at:]
    with pytest.raises(BadImage, match=r"^too_large: (deflated DICOM of over|DICOM with over 3333 elements)"):
        sniff(data, PLAIN, Limits())


def test_damaged_deflate_is_named() -> None:
    data = deflated(dicom(scene(channels=1)))
    with pytest.raises(BadImage, match="corrupt: its deflated data are damaged"):
        sniff(data[:-6000][: data.index(b"1.2.1.99") + 8] + b"\xff" * 2000, PLAIN, Limits())
    with pytest.raises(BadImage, match="truncated"):
        shown(data[: len(data) * 2 // 3])


def test_a_file_that_says_it_is_deflated_in_another_way_is_not_unpacked_behind_our_back() -> None:
    """Its first elements are written without VR; pydicom unpacks such a file at once, to any size."""
    data = deflated(dicom(scene(channels=1)), _LARGE)
    start = data.index(b"\x02\0\x10\0UI")
    implicit = data[:132] + b"\x02\0\x10\0\x16\0\0\0" + data[start + 8 :]
    with pytest.raises(BadImage, match=r"^too_large: deflated DICOM"):
        sniff(implicit, PLAIN, Limits())


@pytest.mark.parametrize("cut", [0, 7, 20, 300])
def test_without_pixels_or_cut_off(cut: int) -> None:
    """An RT plan, whole and cut off within its last elements."""
    plan = Path(pydicom.__file__).parent / "data/test_files/rtplan.dcm"
    data = plan.read_bytes()
    expected = (
        "truncated: DICOM that ends before its pixels" if cut else "no_pixels: DICOM without pixels: RT Plan"
    )
    with pytest.raises(BadImage) as caught:
        sniff(data[: len(data) - cut], PLAIN, Limits())
    assert str(caught.value).startswith(expected)


def test_pixels_of_no_length_are_none() -> None:
    with pytest.raises(BadImage, match=r"^no_pixels: DICOM without pixels: Secondary Capture Image Storage"):
        sniff(dicom(scene(channels=1), PixelData=b""), PLAIN, Limits())


def _odd() -> bytes:
    """Explicit where implicit VR is stated, and with values that break the standard."""
    data = dicom(scene(channels=1), StudyDate="yesterday", PatientAge="old", SpecificCharacterSet="latin99")
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.PatientName = "Müller"
    out = io.BytesIO()
    pydicom.dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue().replace(b"UI\x14\x001.2.840.10008.1.2.1\0", b"UI\x14\x001.2.840.10008.1.2\0\0\0")


@pytest.mark.filterwarnings("ignore")
def test_pydicom_is_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    odd = _odd()
    (tmp_path / "a.dcm").write_bytes(odd)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        pydicom.dcmread(io.BytesIO(odd)).PatientName  # noqa: B018
    assert seen  # what would be on the terminal
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warnings.filters[:] = [entry for entry in warnings.filters if entry[0] == "always"]
        np.testing.assert_array_equal(shown(odd), scene(channels=1))
        index(tmp_path, patient="plain")
    assert [str(warning.message) for warning in seen] == []
    assert capfd.readouterr() == ("", "")


def test_a_manifest_reads_deflated_headers(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(deflated(dicom(scene(channels=1), PatientID="p7", Modality="CT")))
    (tmp_path / "b.dcm").write_bytes(deflated(dicom(scene(channels=1)), _LARGE))
    manifest = index(tmp_path)
    assert list(manifest.column("group")) == ["p7", ""]
    assert list(manifest.column("modality")) == ["CT", ""]
