"""Overlays: colours by CIELAB written out, panels by their pixels, one scale for all on request."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from engine.evals.saliency.estimate import Estimate, estimate
from engine.evals.saliency.evaluate import Progress, SaliencyMap
from engine.report import overlays, saliency_progress
from engine.report.map_colours import ALPHA
from engine.report.overlays import (
    BAR,
    LARGE,
    MARGIN,
    SMALL,
    About,
    Gallery,
    Scale,
    blend,
    contact_sheet,
    outline,
    overlay,
    panels,
    strip,
)

ABOUT = About("torchvision/resnet50", 8)


def _one(seed: int = 0, name: str = "a/b c", side: int = 64) -> SaliencyMap:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    return SaliencyMap(name, pixels, rng.exponential(size=(side, side)), 0.37)


def _lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB of sRGB in 0-255, D65 (IEC 61966-2-1, CIE 15)."""
    c = rgb / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    t = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


#: What people without red or without green cones see of linear RGB (Machado, Oliveira & Fernandes 2009).
BLIND = {
    "protan": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "deutan": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
}


def test_colours_grow_evenly_lighter_for_every_eye() -> None:
    places = np.linspace(0, 1, 18)  # every fifteenth of its 256 colours
    ramp = overlays.colours(places)
    lightness = _lab(ramp)[:, 0]
    steps = np.diff(lightness)
    assert steps.min() > 0 and steps.max() < 1.35 * steps.min() and lightness[-1] - lightness[0] > 70
    jet = np.diff(_lab(colormaps["jet"](places)[:, :3] * 255)[:, 0])
    assert not (jet > 0).all()  # what this test is there to keep out
    for matrix in BLIND.values():
        c = ramp / 255
        linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        seen = (linear @ np.array(matrix).T).clip(0, 1)
        back = np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)
        assert (np.diff(_lab(back * 255)[:, 0]) > 0).all()


def test_the_lower_a_value_the_more_of_the_picture_is_seen() -> None:
    one = _one()
    share = (one.map - one.map.min()) / (one.map.max() - one.map.min())
    colours = colormaps["viridis"](share, bytes=True)[..., :3].astype(float)
    alpha = ALPHA * share[..., None]
    assert ALPHA <= 0.6
    assert np.abs(blend(one) - ((1 - alpha) * one.pixels + alpha * colours)).max() <= 1.1
    assert (blend(one)[share < 0.001] == one.pixels[share < 0.001]).all()


def test_a_constant_map_shows_the_picture_alone() -> None:
    one = SaliencyMap("x", np.full((8, 8, 3), 90, np.uint8), np.full((8, 8), 3.0), 0.0)
    assert (blend(one) == one.pixels).all() and not outline(one.map).any()
    strip(one)


def test_the_outline_runs_inside_the_highest_tenth() -> None:
    map = np.zeros((20, 20))
    map[5:11, 5:11] = 1.0  # 36 of 400 pixels
    expected = np.zeros((20, 20), bool)
    expected[5:11, 5:11] = True
    expected[6:10, 6:10] = False
    np.testing.assert_array_equal(outline(map), expected)
    map = np.zeros((20, 20))
    map[:, :2] = 1.0  # along the picture's border, which is no border of the area
    found = outline(map)
    assert found[:, 1].all() and found.sum() == 20


def test_panels_stand_side_by_side_below_their_head(tmp_path: Path) -> None:
    one = _one(side=112)
    with Image.open(overlay(one, tmp_path / "o.png", ABOUT)) as picture:
        drawn = np.asarray(picture)
    side = LARGE
    image, over, map = panels(one, Scale.of(one.map), side)
    assert image.shape == (side, side, 3)
    top = next(y for y in range(200) if (drawn[y, MARGIN : MARGIN + side] == image[0]).all())
    for at, panel in enumerate((image, over, map)):
        left = MARGIN + at * (side + MARGIN)
        np.testing.assert_array_equal(drawn[top : top + side, left : left + side], panel)
    bar = drawn[top : top + side, MARGIN + 3 * (side + MARGIN) + BAR // 2].astype(float)
    assert bar[0, 0] > 200 and bar[0, 2] < 80  # yellow above, purple below
    assert bar[-1, 0] < 80 and bar[-1, 2] > 70
    # Each value of the map is drawn as it is: no smoothing between computed numbers.
    np.testing.assert_array_equal(map[::4, ::4], np.rint(overlays.colours(Scale.of(one.map).share(one.map))))


def _said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every line that is written on a picture."""
    said: list[str] = []
    write = overlays.text_drawing.write

    def listening(draw: object, x: int, y: int, lines: list[str], colour: str) -> None:
        said.extend(lines)
        write(draw, x, y, lines, colour)

    monkeypatch.setattr(overlays.text_drawing, "write", listening)
    return said


def test_a_picture_says_model_stride_unit_scale_and_the_whole_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = _said(monkeypatch)
    name = "study/" + "0123456789" * 25 + "/end.png"
    overlay(_one(name=name), tmp_path / "o.png", ABOUT)
    text = " ".join(said)
    for words in ("torchvision/resnet50", "stride 8", "without unit", "own scale", "0.370", "10 x 10"):
        assert words in text
    assert name in "".join(said)
    said.clear()
    contact_sheet([_one()], tmp_path / "s.png", About("m", 1), Scale(0.0, 2.5))
    text = " ".join(said)
    assert "one scale for all images, 0 to 2.5" in text and "exact" in text and "2.5" in said


def test_sheet_holds_all_images(tmp_path: Path) -> None:
    ones = [_one(seed) for seed in range(3)]
    tile = np.asarray(strip(ones[2], side=SMALL))
    with Image.open(contact_sheet(ones, tmp_path / "s.png", ABOUT)) as sheet:
        assert sheet.width == 2 * tile.shape[1]
        np.testing.assert_array_equal(np.asarray(sheet)[-tile.shape[0] :, : tile.shape[1]], tile)


@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True])
def test_gallery_writes_pictures_maps_and_a_sheet(tmp_path: Path, shared: bool) -> None:
    folder = tmp_path / "new" / "folder"
    gallery = Gallery(folder, ABOUT, shared=shared, most=2)
    ones = [_one(0, "same"), _one(1, "same"), _one(2, "../up")]
    ones[1] = SaliencyMap("same", ones[1].pixels, ones[1].map * 3, 0.5)
    for one in ones:
        gallery.add(one)
    gallery.finish()
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in gallery.files)
    assert len(names) == 7 and len(list(tmp_path.iterdir())) == 1
    np.testing.assert_array_equal(np.load(folder / "001-same.npy"), ones[1].map)
    every = Scale.of(*(one.map for one in ones))
    assert every.high == max(one.map.max() for one in ones)
    for at, one in enumerate(ones):
        expected = overlay(one, tmp_path / "e.png", ABOUT, every if shared else None).read_bytes()
        assert next(folder.glob(f"00{at}-*.png")).read_bytes() == expected


def test_progress_line_has_rate_and_time_left() -> None:
    line = saliency_progress.saliency_line(Progress("x", 1, 2, done=300, total=900, computed=200, seconds=10))
    assert line == "image 1/2 (x): 300/900 places, 20.0 places/s, 0:30 left"


def test_an_estimate_says_what_is_to_do_and_what_takes_less() -> None:
    usual = {"size": 10, "usual": 8}
    assert estimate(8, 7200, 8, 0.05, **usual) == Estimate(8, 7200, 8, 360.0)
    (line,) = saliency_progress.estimate_lines(estimate(8, 7200, 8, 0.05, **usual))
    assert line == "8 maps at stride 8, 7,200 places: about 6 min on this machine"
    first, second = saliency_progress.estimate_lines(estimate(1, 54_289, 1, 0.5, **usual))
    assert first.startswith("1 map at stride 1, 54,289 places: about 7.5 h") and "--stride 8" in second
    assert "--stride 10" in saliency_progress.estimate_lines(estimate(90, 81_000, 8, 0.05, **usual))[1]
    assert "--images" in saliency_progress.estimate_lines(estimate(90, 81_000, 10, 0.05, **usual))[1]
    assert (
        "--stride 1 goes on"
        in saliency_progress.estimate_lines(estimate(1, 9, 8, float("nan"), **usual, exact=1))[1]
    )
