"""Contact sheets, by their pixels."""

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from engine.decode.source import ImageSource
from engine.errors import Refused
from engine.evals.neighbours.audit import Audit
from engine.evals.neighbours.search import Found, SearchResult
from engine.kernels.near_duplicates import Pairs
from engine.report import lettering
from engine.report.sheets import (
    COLOURS,
    MARGIN,
    SIDE,
    Tile,
    audit_sheet,
    contact_sheet,
    search_sheet,
    shortened,
)

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


@pytest.mark.slow
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


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every line that is written on a sheet."""
    lines: list[str] = []
    write = lettering.write

    def listening(draw: object, x: int, y: int, texts: list[str], colour: str) -> None:
        lines.extend(texts)
        write(draw, x, y, texts, colour)

    monkeypatch.setattr(lettering, "write", listening)
    return lines


LONG = "site 3/patient-000123/study-2020-01-01/series.1.2.840.113619.2.5/image-{}.dcm"


def test_texts_are_broken_not_cut() -> None:
    for text in (LONG.format(1), "x" * 100, "a b", "", "ab-" * 30):
        lines = lettering.wrapped(text, 22, len)
        assert "".join(lines).replace(" ", "") == text.replace(" ", "") and max(map(len, lines)) <= 22
    assert lettering.wrapped("study-1/image-22", 12, len) == ["study-1/", "image-22"]
    (*_, last) = lettering.wrapped("x" * 10_000, 22, len, most=3)
    assert last.endswith("…") and len(last) <= 22


def test_a_search_sheet_names_metric_model_classes_splits_and_whole_ids(
    source: ImageSource, tmp_path: Path, said: list[str]
) -> None:
    found = tuple(
        Found(rank, row, LONG.format(row), label, split, "", 0.1 * rank)
        for rank, (row, label, split) in enumerate(
            [(0, "A", "test"), (1, "B", ""), (1, "", "train")], start=1
        )
    )
    report = {"model": "torchvision/resnet50", "distance": "euclidean", "images": 7}
    itself = {"row": 5, "image_id": LONG.format(5), "label": "A", "split": "val", "group": ""}
    query = {"file": "wide.png", "in_bank": [itself]}
    result = SearchResult(query, found, report, None)
    search_sheet(source, result, tmp_path / "s.png", image=source.root / "wide.png")
    text, joined = " ".join(said), "".join(said)
    for words in ("3 nearest of 7 images by euclidean distance", "torchvision/resnet50", "1: euclidean 0.1"):
        assert words in text
    for words in ("class A (same)", "class B (other)", "no class", "split test", "no split", "split val"):
        assert words in said
    for row in (0, 1, 5):
        assert LONG.format(row).replace(" ", "") in joined.replace(" ", "")
    assert {"the query", "same class", "other class", "class not known"} <= set(said)
    with Image.open(tmp_path / "s.png") as image:
        used = {tuple(colour) for _, colour in image.convert("RGB").getcolors(1 << 20)}
    assert {ImageColor.getrgb(colour) for colour in COLOURS.values()} <= used


def test_an_audit_sheet_names_metric_model_and_pairs_across_splits(
    source: ImageSource, tmp_path: Path, said: list[str]
) -> None:
    pairs = Pairs(np.array([0, 0]), np.array([1, 1]), np.array([0.999, 0.99]))
    codes = {"label": (np.array([0, 1]), ["A", "B"]), "split": (np.array([0, 1]), ["train", "test"])}
    columns = {name: (code.astype(np.int32), words) for name, (code, words) in codes.items()}
    report = {"model": "m/own", "threshold": 0.95, "pairs": 12, "images": 40}
    audit_sheet(source, [LONG.format(0), LONG.format(1)], Audit(pairs, report, columns), tmp_path / "a.png")
    text = " ".join(said)
    for words in ("2 most similar of 12 pairs", "cosine similarity of at least 0.95", "m/own", "40 images"):
        assert words in text
    assert said.count("pair 2: cosine 0.990000") == 2 and said.count("class B (other)") == 2
    assert text.count("(pair across") == 4 and "image-1.dcm" in "".join(said)
    said.clear()
    none = Pairs(*(np.array([], each) for each in (int, int, float)))
    audit_sheet(source, [], Audit(none, {**report, "pairs": 0}, columns), tmp_path / "n.png")
    assert "no pairs" in said and "same class" not in said
