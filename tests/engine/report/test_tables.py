"""Tables of any width from 40: numbers whole, names told apart, rows in their order, no line too wide."""

import io
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.report import console, tables

NAMES = st.text(st.sampled_from("ab/-_.@é肺0"), min_size=1, max_size=70)
PROSE = st.lists(st.text(st.sampled_from("abc-/,7"), min_size=1, max_size=30), max_size=8).map(" ".join)
NUMBERS = st.integers(-(10**9), 10**12) | st.floats(-1e9, 1e9) | st.sampled_from(["0.123-0.456", "0.9 ± 0.1"])
TABLES = st.integers(1, 11).flatmap(
    lambda n: st.tuples(
        st.lists(st.sampled_from(["model", "mean per class", "embedded now", ""]), min_size=n, max_size=n),
        st.lists(st.tuples(*[NAMES | PROSE | NUMBERS] * n), max_size=4),
    )
)


def wide(text: str) -> int:
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in ("W", "F")) for c in text
    )


@settings(max_examples=60, deadline=None)
@given(TABLES, st.integers(40, 130))
def test_no_line_is_too_wide_and_no_number_is_broken(table: tuple, width: int) -> None:
    heads, rows = table
    drawn = tables.lines(heads, rows, width)
    assert max(map(wide, drawn)) <= width
    text = "\n".join(drawn)
    for row in rows:
        for cell in row:
            if not isinstance(cell, str):
                expected = f"{cell:.4g}" if isinstance(cell, float) else f"{cell:,}"
                assert re.search(rf"(?<![\d.]){re.escape(expected)}(?![\d.])", text), (expected, text)


@settings(max_examples=60, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=8, unique=True), st.integers(8, 60))
def test_different_names_stay_different(names: list[str], width: int) -> None:
    short = tables.shortened(names, width)
    assert list(short) == names
    assert len(set(short.values())) == len(names)
    for name, text in short.items():
        assert wide(text) <= width
        assert text == name if wide(name) <= width else text != name


def test_a_name_keeps_its_beginning_and_its_end() -> None:
    names = ["torchvision/wide_resnet101_2@ab12cd34", "torchvision/wide_resnet101_2@ab12cd35"]
    assert list(tables.shortened(names, 20).values()) == ["torchvisio…@ab12cd34", "torchvisio…@ab12cd35"]


def test_names_that_differ_in_the_middle_are_cut_elsewhere() -> None:
    names = [f"{'a' * 20}{i}{'b' * 40}" for i in range(3)]
    short = tables.shortened(names, 30)
    assert all("…" in text for text in short.values()) and len(set(short.values())) == 3
    assert not any("#" in text for text in short.values())


def test_names_that_no_cut_tells_apart_are_numbered() -> None:
    names = [f"{'a' * 40}{i}{'b' * 40}" for i in range(3)]
    assert [text[-2:] for text in tables.shortened(names, 20).values()] == ["#1", "#2", "#3"]


TEN = ["model", "rows", "ok", "failed", "pending", "embedded now", "img/s", "decoder", "precision", "key"]


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_columns_that_do_not_fit_come_in_blocks_that_say_whose_they_are(width: int) -> None:
    models = ["torchvision/resnet50@ab12cd34", "torchvision/resnet50@ffffffff"]
    rows = [[m, 224_316, 224_316, 0, 0, 224_316, 1234.5, "turbo", "fp32", "2d2ae3b2f8e3"] for m in models]
    drawn = tables.lines(TEN, rows, width)
    blocks = "\n".join(drawn).split("\n\n")
    assert len(blocks) == {40: 5, 60: 3, 80: 2, 120: 1, 200: 1}[width]
    for block in blocks:
        lines = block.splitlines()
        assert [line.split()[0][-6:] for line in lines[-2:]] == ["12cd34", "ffffff"]
    assert "\n".join(drawn).count("224,316") == 6
    assert "\n".join(drawn).count("1234") == 2


def test_prose_is_wrapped_between_words() -> None:
    text = "No CUDA device: everything runs on the CPU of 7.6 GiB"
    drawn = tables.lines(["what", "found"], [["gpu", text], ["cpu", "2 cores"]], 40)
    assert " ".join(" ".join(drawn[2:]).split()) == f"gpu {text} cpu 2 cores"
    assert not any(line.rstrip().endswith("7.") for line in drawn)


def test_rows_stay_in_their_order() -> None:
    drawn = tables.lines(["k", "accuracy"], [[20, 0.5], [1, 0.75], [5, 0.25]], 80)
    assert [line.split() for line in drawn[2:]] == [["20", "0.5"], ["1", "0.75"], ["5", "0.25"]]


@pytest.mark.parametrize("width", [None, 50])
def test_without_a_terminal_a_table_is_80_wide_or_as_COLUMNS_says(
    width: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if width:
        monkeypatch.setenv("COLUMNS", str(width))
    console.print_table(["name", "score"], [["x" * 150, 0.123456]])
    drawn = capsys.readouterr().out.splitlines()
    assert max(map(len, drawn)) == (width or 80)
    assert drawn[-1 if drawn[-1] else -2].endswith("0.1235")


@pytest.mark.parametrize("stated", ["0", "-3", "wide", "", "٣"])
def test_a_COLUMNS_that_says_nothing(stated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", stated)
    assert console.width() == 80


def test_where_the_encoding_has_no_ellipsis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    monkeypatch.setattr("sys.stdout", stream)
    console.print_table(["name"], [["x" * 150], ["y"]])
    stream.seek(0)
    lines = stream.read().splitlines()
    assert max(map(len, lines)) == 60
    assert "~" in "".join(lines) and "\\u" not in "".join(lines)


def test_numbers_of_numpy_are_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_table(["a", "b"], [[np.float32(0.25), np.int64(12345)], [None, True]])
    assert "0.25  12,345" in capsys.readouterr().out
