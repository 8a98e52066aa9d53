"""Spread, ratios, interleaving and writers of the speed scripts, against numbers worked out by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed import common
from benchmarks.speed.common import Spread, interleaved, markdown_table, rate, ratio


def test_spread_is_median_and_range() -> None:
    assert Spread.of([3.0, 1.0, 10.0]) == Spread(n=3, median=3.0, min=1.0, max=10.0)


def test_ratio_pairs_rounds_and_refuses_unequal_numbers_of_them() -> None:
    # Pairwise 2, 2, 2; the quotient of the medians would hide that it is steady.
    assert ratio([2.0, 20.0, 200.0], [1.0, 10.0, 100.0]) == Spread(3, 2.0, 2.0, 2.0)
    with pytest.raises(ValueError):
        ratio([1.0, 2.0], [1.0])


def test_rate_is_items_over_seconds() -> None:
    assert rate(100, [1.0, 2.0, 4.0]) == Spread(3, 50.0, 25.0, 100.0)


def test_contenders_take_turns_and_warm_up_is_not_counted() -> None:
    order: list[str] = []
    seconds = interleaved({name: lambda name=name: order.append(name) for name in "abc"}, rounds=3)
    assert order == list("abc" + "abc" + "bca" + "cab")
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3, "c": 3}


def test_markdown_cells_cannot_break_the_table() -> None:
    table = markdown_table(["what", "value"], [["a|b", 1234.5], ["line\nbreak", 0.12345]])
    assert table.splitlines()[2:] == ["| a\\|b | 1,234 |", "| line break | 0.123 |"]


def test_json_takes_spreads_paths_and_numpy_and_leaves_no_partial_file(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "result.json"
    common.write_json({"a": Spread(1, 2.0, 2.0, 2.0), "p": Path("x"), "n": np.float32(0.5)}, out)
    assert json.loads(out.read_text()) == {
        "a": {"n": 1, "median": 2.0, "min": 2.0, "max": 2.0},
        "p": "x",
        "n": 0.5,
    }
    assert [path.name for path in out.parent.iterdir()] == ["result.json"]


def test_commit_is_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBANK_COMMIT", "abc123")
    assert common.commit() == "abc123"
