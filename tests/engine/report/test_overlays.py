"""Overlays, against the blend written out with matplotlib's own colour map."""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image

from engine.evals.saliency import Progress, SaliencyMap
from engine.report import counting
from engine.report.overlays import ALPHA, MARGIN, Gallery, blend, contact_sheet, overlay, pair


def _one(seed: int = 0, name: str = "a/b c", side: int = 64) -> SaliencyMap:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    return SaliencyMap(name, pixels, rng.exponential(size=(side, side)), 0.37)


def test_overlay_is_60_percent_jet_over_the_pixels() -> None:
    one = _one()
    scaled = (one.map - one.map.min()) / (one.map.max() - one.map.min())
    colours = colormaps["jet"](scaled, bytes=True)[..., :3].astype(float)
    expected = 0.4 * one.pixels + 0.6 * colours
    assert ALPHA == 0.6
    assert np.abs(blend(one) - expected).max() <= 1.1  # matplotlib's bytes are rounded already


def test_a_constant_map_is_all_lowest_colour() -> None:
    one = SaliencyMap("x", np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 3.0), 0.0)
    assert (blend(one) == np.rint(0.6 * np.array(colormaps["jet"](0.0)[:3]) * 255)).all()
    pair(one)


def test_image_and_overlay_stand_side_by_side(tmp_path: Path) -> None:
    one = _one()
    with Image.open(overlay(one, tmp_path / "o.png")) as picture:
        drawn = np.asarray(picture)
    inside = slice(MARGIN, MARGIN + 64)
    np.testing.assert_array_equal(drawn[inside, MARGIN : MARGIN + 64], one.pixels)
    left = 2 * MARGIN + 64
    np.testing.assert_array_equal(drawn[inside, left : left + 64], blend(one))
    bar = drawn[inside, 3 * MARGIN + 2 * 64 + 3]
    assert bar[0, 0] > bar[0, 2] and bar[-1, 2] > bar[-1, 0]  # the largest value on top, red; the least blue


def test_sheet_holds_all_pairs(tmp_path: Path) -> None:
    ones = [_one(seed) for seed in range(3)]
    width, height = pair(ones[0]).size
    with Image.open(contact_sheet(ones, tmp_path / "s.png")) as sheet:
        assert sheet.size == (2 * width, 2 * height)
        np.testing.assert_array_equal(np.asarray(sheet)[height:, :width], np.asarray(pair(ones[2])))


def test_gallery_writes_pictures_maps_and_a_sheet(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path / "new" / "folder", most=2)
    ones = [_one(0, "same"), _one(1, "same"), _one(2, "../up")]
    for one in ones:
        gallery.add(one)
    gallery.finish()
    names = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert names == sorted(path.name for path in gallery.files)
    assert len(names) == 7 and len(list(tmp_path.iterdir())) == 1
    np.testing.assert_array_equal(np.load(tmp_path / "new" / "folder" / "001-same.npy"), ones[1].map)


def test_progress_line_has_rate_and_time_left() -> None:
    line = counting.saliency_line(Progress("x", 1, 2, done=300, total=900, computed=200, seconds=10))
    assert line == "image 1/2 (x): 300/900 places, 20.0 places/s, 0:30 left"
