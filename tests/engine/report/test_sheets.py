"""Contact sheets, by their pixels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from engine.decode.source import ImageSource
from engine.errors import Refused
from engine.report.sheets import COLOURS, MARGIN, SIDE, Tile, contact_sheet

RED = (200, 10, 30)


@pytest.fixture
def source(tmp_path: Path) -> ImageSource:
    Image.new("RGB", (400, 200), RED).save(tmp_path / "wide.png")
    Image.new("I;16", (20, 20), 65535).save(tmp_path / "deep.png")
    (tmp_path / "bad.png").write_bytes(b"nothing")
    return ImageSource(tmp_path, ["wide.png", "deep.png", "bad.png", "gone.png"])


def test_pictures_frames_and_grey_tiles(source: ImageSource, tmp_path: Path) -> None:
    tiles = [
        Tile(source, 0, ("wide", "a label much too long for its tile, without end"), "query"),
        Tile(source, 1, ("=deep\n\x00", "\u202eb"), "same"),
        Tile(source, 2, (), "other"),
        Tile(source, 3, ("gone",)),
        Tile(None, 0, ()),
    ]
    out = tmp_path / "sheet.png"
    assert contact_sheet(tiles, out, columns=3) == 3
    with Image.open(out) as image:
        sheet = np.asarray(image.convert("RGB"))
    step = SIDE + MARGIN
    assert sheet.shape[1] == 3 * step + MARGIN
    centre, edge = MARGIN + SIDE // 2, MARGIN + SIDE // 8
    assert tuple(sheet[centre, centre]) == RED
    assert tuple(sheet[edge, centre]) not in (RED, (0, 0, 0))  # a wide picture is not stretched
    assert tuple(sheet[centre, centre + step]) == (255, 255, 255)  # white of 16 bits is white
    assert tuple(sheet[edge, centre + 2 * step]) == (200, 200, 200)
    for at, kind in enumerate(("query", "same", "other")):
        assert tuple(sheet[MARGIN, centre + at * step]) == ImageColor.getrgb(COLOURS[kind])
    # Captions stay below their own tile: the gap between two tiles is paper.
    assert (sheet[:, MARGIN + SIDE : step + MARGIN] == 255).all()


def test_one_tile_and_no_folder(source: ImageSource, tmp_path: Path) -> None:
    assert contact_sheet([Tile(source, 0, ())], tmp_path / "one.png") == 0
    assert contact_sheet([Tile(source, 0, ())], tmp_path / "new" / "one.png") == 0
    with pytest.raises(Refused, match=r"one\.png"):
        contact_sheet([Tile(source, 0, ())], tmp_path / "one.png" / "one.png")
