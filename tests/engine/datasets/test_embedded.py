"""The embedded data sets are the packages' own pictures, with the same names and bytes everywhere."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine import datasets
from engine.datasets import _files
from engine.errors import Refused
from stores.manifest.check import check
from stores.manifest.manifest import Manifest

pytestmark = pytest.mark.slow

#: The sets whose images come with an installed package.
EMBEDDED = ("digits", "tiles")


@pytest.fixture(scope="module", params=EMBEDDED)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Manifest]:
    name = request.param
    return name, datasets.build(name, tmp_path_factory.mktemp(name))


def open_pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        image.load()
        return np.asarray(image)


def test_both_sets_are_found() -> None:
    assert {"digits", "tiles"} <= set(datasets.available())
    assert not any(name.startswith("_") for name in datasets.available())


def test_unknown_set_is_refused() -> None:
    for name in ("nope", "_files", "__init__", "../stores"):
        with pytest.raises(Refused, match=r"digits.*tiles"):
            datasets.load(name)


def test_facts_say_what_is_written(written: tuple[str, Manifest]) -> None:
    name, manifest = written
    facts = datasets.load(name).facts
    assert facts.name == name
    assert (facts.images, facts.classes) == (len(manifest), manifest.classes)
    assert facts.embedded and facts.caveats and facts.licence and facts.source


def test_files_are_sound_and_digests_theirs(written: tuple[str, Manifest]) -> None:
    _, manifest = written
    report = check(manifest, content=True)
    assert {problem.code for problem in report.problems} <= {"no_group", "duplicate_content"}
    assert manifest.sha256s and all(manifest.sha256s)
    assert Manifest.from_folder(manifest.root, hash_files=True).sha256s == manifest.sha256s


def test_writing_again_changes_nothing(written: tuple[str, Manifest], tmp_path: Path) -> None:
    name, manifest = written
    before = {path: path.stat().st_mtime_ns for path in manifest.root.rglob("*.png")}
    victim = manifest.root / manifest.uris[3]
    victim.write_bytes(b"damaged")
    again = datasets.build(name, manifest.root)
    assert again.digest == manifest.digest
    assert "digest" not in {problem.code for problem in check(again, content=True).problems}
    changed = {path for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert changed == {victim}
    assert datasets.build(name, tmp_path).digest == manifest.digest


def test_digits_are_those_of_scikit_learn(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    truth = load_digits()
    manifest = datasets.build("digits", tmp_path)
    assert len(manifest) == 1797
    for uri, image_id, label in zip(
        manifest.uris[::7], manifest.image_ids[::7], manifest.column("label")[::7], strict=True
    ):
        i = int(image_id.removeprefix("digit-"))
        assert label == str(truth.target[i])
        pixels = open_pixels(tmp_path / uri)
        assert (pixels.dtype, pixels.shape) == (np.uint8, (8, 8))
        np.testing.assert_allclose(pixels, truth.images[i] * 255 / 16, atol=0.5)


def test_digits_bytes_are_pinned(tmp_path: Path) -> None:
    """No codec, so no library version, has a part in them."""
    manifest = datasets.build("digits", tmp_path)
    assert manifest.digest == "5dd9061b6cb0ad0a9cf30468cecf1e3276799512d9ea7c7895215c7a1bf9643f"


def test_tiles_lie_where_they_say(tmp_path: Path) -> None:
    import skimage

    manifest = datasets.build("tiles", tmp_path)
    pictures = {
        path.stem: np.asarray(Image.open(path))
        for path in (Path(skimage.__file__).parent / "data").glob("*")
        if path.stem in ("retina", "ihc", "cell", "microaneurysms")
    }
    names = ("uri", "label", "group", "x", "y", "side")
    seen: dict[str, np.ndarray] = {}
    for uri, label, group, *place in zip(*(manifest.column(name) for name in names), strict=True):
        x, y, side = map(int, place)
        tile = open_pixels(tmp_path / uri)
        np.testing.assert_array_equal(tile, pictures[group][y : y + side, x : x + side])
        covered = seen.setdefault(group, np.zeros(pictures[group].shape[:2], bool))
        assert not covered[y : y + side, x : x + side].any(), "tiles do not overlap"
        covered[y : y + side, x : x + side] = True
        assert np.median(tile) > 20, "no black border"
        assert (
            label
            == {"retina": "fundus", "microaneurysms": "fundus", "ihc": "histology", "cell": "phase"}[group]
        )
    centre = seen["retina"].shape[0] // 2
    assert seen["retina"][centre, centre], "the middle of the fundus is kept"
    assert not seen["retina"][0, 0], "its black corner is not"


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (8, 8, 3), (200, 400), (300, 250, 3)])
def test_png_is_read_back_by_pillow(shape: tuple[int, ...]) -> None:
    """The larger ones need several deflate blocks."""
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    data = _files.png(pixels)
    with Image.open(io.BytesIO(data)) as image:
        image.verify()
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels)
    assert len(data) < pixels.size + shape[0] + 200


def test_missing_package_is_refused_with_the_remedy() -> None:
    with pytest.raises(Refused, match=r"pip install scikit-image"):
        _files.package_file("no_such_package", "data/x.png", "scikit-image")
    with pytest.raises(Refused, match=r"numpy/data/x\.png is not installed"):
        _files.package_file("numpy", "data/x.png", "numpy")


def test_unwritable_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused):
        datasets.build("digits", tmp_path / "file")


def test_packages_are_read_not_imported(tmp_path: Path) -> None:
    """scikit-image would bring pooch, which downloads."""
    code = (
        "import sys, pathlib; from engine import datasets\n"
        "for name in ('digits', 'tiles'): datasets.build(name, pathlib.Path(sys.argv[1]) / name)\n"
        "print(*sorted({'skimage', 'sklearn', 'pooch', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.stdout.split() == []
