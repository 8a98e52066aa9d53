"""Figures of pictures: what they show is what the bank keeps, on the image as the model saw it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.paper.__main__ import main
from benchmarks.paper.picture_sheet import Sheet, Tile
from benchmarks.paper.pictures import jet_over, shown
from benchmarks.paper.sources import read_sources
from engine.errors import Refused
from tests.command import embank
from tests.studies import MODEL, make_study


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Make a bank of 4 images with occlusion maps and reconstructions, also written as files."""
    root = make_study(tmp_path_factory.mktemp("pictures") / "study", 4)
    (root / "banks").mkdir()
    bank = (root / "bank").rename(root / "banks" / "chexpert.bank")
    common = ("--model", MODEL, "--images", 1, "--device", "cpu")
    for words in (
        ("saliency", bank, *common, "--stride", 10, "-o", root / "maps"),
        ("reconstruct", bank, *common, "--steps", 1, "--seeds", 1, "-o", root / "dip"),
    ):
        ran = embank(*words)
        assert ran.code == 0, ran.err
    return root


def rendered(study: Path, image_id: str, side: int) -> np.ndarray:
    """Render an image with Pillow alone."""
    with Image.open(study / "images" / image_id) as image:
        return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))


@pytest.mark.slow
def test_maps_lie_over_the_image_as_jet_at_60_percent(study):
    (picture,) = shown(read_sources(study), "saliency")
    inner = rendered(study, picture.image_id, 32 + 18)[9:-9, 9:-9]
    np.testing.assert_array_equal(picture.original, inner)
    (file,) = (study / "maps").glob("*.npy")
    values = np.load(file)
    from matplotlib import cm

    colours = cm.jet((values - values.min()) / np.ptp(values))[..., :3] * 255
    expected = np.rint(0.4 * inner + 0.6 * colours)
    np.testing.assert_array_equal(picture.drawn, expected.astype(np.uint8))
    assert (picture.dataset, picture.model) == ("chexpert", MODEL)
    assert picture.caption == f"{(values > values.mean()).mean():.3f}"


@pytest.mark.slow
def test_reconstructions_are_the_files_that_the_run_wrote(study):
    (picture,) = shown(read_sources(study), "reconstruct")
    (file,) = (study / "dip").glob("000-*.png")
    with Image.open(file) as image:
        np.testing.assert_array_equal(picture.drawn, np.asarray(image))
    np.testing.assert_array_equal(picture.original, rendered(study, picture.image_id, 32))
    assert picture.caption.startswith("loss ")  # the weights of LPIPS are not at hand


@pytest.mark.slow
@pytest.mark.parametrize("name", ["figure6", "figure8", "figurea5", "figurea6"])
def test_the_figures_are_drawn_by_the_command(study, tmp_path, name, capsys):
    out = tmp_path / f"{name}.png"
    assert main([name, "--from", str(study), "-o", str(out)]) == 0
    with Image.open(out) as image:
        pixels = np.asarray(image)
    assert pixels.shape[0] > 200 and pixels.std() > 5
    assert name in capsys.readouterr().out


@pytest.mark.slow
def test_a_lost_map_is_refused_with_the_command_that_makes_it(study, tmp_path):
    import shutil

    copy = tmp_path / "chexpert.bank"
    shutil.copytree(study / "banks" / "chexpert.bank", copy)
    shutil.rmtree(copy / ".embank" / "saliency")
    with pytest.raises(Refused, match="missing or damaged") as error:
        shown(read_sources(copy), "saliency")
    assert f"embank saliency {copy} --model {MODEL} --id " in error.value.remedy
    with pytest.raises(Refused, match="no occlusion map in mode as-published") as error:
        shown(read_sources(copy), "saliency", "as-published")
    command = f"embank saliency {copy} --model {MODEL} --mode as-published"
    assert command in error.value.remedy


def test_figures_of_pictures_need_a_study(tmp_path, capsys):
    assert main(["figure8", "-o", str(tmp_path / "x.png")]) == 2
    assert "--from" in capsys.readouterr().err


def test_a_constant_map_has_one_colour():
    pixels = np.full((4, 4, 3), 100, np.uint8)
    drawn = jet_over(pixels, np.ones((4, 4)))
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) == 1


def test_a_sheet_shows_its_tiles_and_what_is_missing():
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    sheet = Sheet(["header"], ["a", "b"], ["x"], {("a", "x"): Tile(red, "0.5")}, side=64)
    pixels = np.asarray(sheet.image())
    assert (pixels == [255, 0, 0]).all(axis=-1).sum() == 64 * 64
    assert (pixels == [0xEE, 0xEE, 0xEE]).all(axis=-1).sum() > 3000
