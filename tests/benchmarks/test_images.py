"""Generated pictures: the right kind, the same every time, with and without the packages they come from."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import images
from benchmarks.images import ImageClass, manifest_of, write_images

JPEG = ImageClass("jpeg", 97, 64, progressive=True)
GREY_PNG = ImageClass("grey", 40, 50, grey=True, quality=0)


@pytest.mark.parametrize("kind", [JPEG, GREY_PNG])
@pytest.mark.parametrize("shipped", [True, False])
def test_pictures_are_of_the_kind_differ_and_come_out_the_same(
    kind: ImageClass, shipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shipped:
        monkeypatch.setattr(images, "_SHIPPED", {})
    first = write_images(tmp_path / "a", kind, 3)
    second = write_images(tmp_path / "b", kind, 3)
    for path in first:
        with Image.open(path) as picture:
            assert picture.size == (kind.width, kind.height)
            assert picture.mode == ("L" if kind.grey else "RGB")
            assert picture.format == ("JPEG" if kind.quality else "PNG")
            assert bool(picture.info.get("progressive")) == kind.progressive
            assert np.asarray(picture).std() > 5  # structure, not a flat square
    contents = [path.read_bytes() for path in first]
    assert len(set(contents)) == 3
    assert contents == [path.read_bytes() for path in second]


def test_files_that_are_there_are_kept(tmp_path: Path) -> None:
    path = write_images(tmp_path, GREY_PNG, 1)[0]
    path.write_bytes(b"mine")
    assert write_images(tmp_path, GREY_PNG, 2)[0].read_bytes() == b"mine"


def test_manifest_goes_round_the_files(tmp_path: Path) -> None:
    paths = write_images(tmp_path, GREY_PNG, 3)
    manifest = manifest_of(paths, tmp_path, 7)
    names = [path.relative_to(tmp_path).as_posix() for path in paths]
    assert manifest.uris == [names[i] for i in (0, 1, 2, 0, 1, 2, 0)]
    assert len(set(manifest.image_ids)) == 7
