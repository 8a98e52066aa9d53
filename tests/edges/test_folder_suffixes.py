"""A folder's images are listed under every suffix of the formats that are decoded."""

from pathlib import Path

import pytest

from stores.manifest.manifest import Manifest

FOLDER = Path(__file__).parents[1] / "data" / "edges" / "folder-suffixes"
#: What Pillow and the formats' own registrations call them.
SUFFIXES = (
    "avif", "bmp", "gif", "j2c", "j2k", "jfif", "jp2", "jpc", "jpe", "jpeg", "jpg", "pbm", "pgm", "png",
    "pnm", "ppm", "tif", "tiff", "webp",
)  # fmt: skip


def test_one_jpeg_by_three_names() -> None:
    manifest = Manifest.from_folder(FOLDER)
    assert manifest.uris == ["a.jfif", "a.jpe", "a.jpg"]
    assert not manifest.notes


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_listed(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a.{suffix.upper()}").touch()
    assert len(Manifest.from_folder(tmp_path)) == 1


def test_what_is_not_decoded_is_named(tmp_path: Path) -> None:
    for name in ("a.png", "b.heic", "c.jxl", "d.nii", "e.nii.gz", "f.txt", "g.tar.gz"):
        (tmp_path / name).touch()
    assert Manifest.from_folder(tmp_path).notes == (
        "1 skipped: HEIC is not decoded, convert it to PNG or TIFF (.heic)",
        "1 skipped: JPEG XL is not decoded, convert it to PNG or TIFF (.jxl)",
        "1 skipped: NIfTI is not decoded, convert it to PNG or TIFF (.nii)",
        "1 skipped: NIfTI is not decoded, convert it to PNG or TIFF (.nii.gz)",
        "1 skipped: not an image (.gz)",
        "1 skipped: not an image (.txt)",
    )


def test_gifs_are_listed_and_it_is_said_what_is_taken_of_them(tmp_path: Path) -> None:
    for name in ("a.gif", "b.GIF"):
        (tmp_path / name).touch()
    assert Manifest.from_folder(tmp_path).notes == (
        "2 listed: GIF (of an animated one, the first frame is taken)",
    )
