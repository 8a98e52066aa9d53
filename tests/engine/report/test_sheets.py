"""Contact sheets, by their pixels."""

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from engine.decode.source import ImageSource
from engine.errors import Refused
from engine.report.sheets import COLOURS, MARGIN, SIDE, Tile, contact_sheet, shortened

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


def cut_one_by_one(text: str, room: int) -> str:
    """The longest beginning that fits with its ellipsis, tried from the longest on."""
    if len(text) <= room:
        return text
    return next(text[:n] + "…" for n in range(len(text) - 1, -1, -1) if n + 1 <= room or n == 0)


@pytest.mark.parametrize("room", [0, 1, 2, 7, 30])
def test_what_is_too_long_is_cut_where_it_ceases_to_fit(room: int) -> None:
    for size in range(40):
        text = "abcdefghij" * 4
        assert shortened(text[:size], room, len) == cut_one_by_one(text[:size], room)


def test_labels_of_ten_thousand_characters_do_not_stall_a_sheet(source: ImageSource, tmp_path: Path) -> None:
    calls = 0

    def length(text: str) -> float:
        nonlocal calls
        calls += 1
        return float(len(text))

    shortened("x" * 10_000, 20, length)
    assert calls < 20  # one a character before
    start = time.process_time()
    contact_sheet(
        [Tile(None, 0, ("W" * 10_000, "\u80ba" * 10_000, "\u0301" * 10_000))] * 50, tmp_path / "a.png"
    )
    assert time.process_time() - start < 5
