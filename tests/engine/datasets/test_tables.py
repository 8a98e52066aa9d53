"""Reading label tables: every cell as text, nothing guessed."""

from pathlib import Path

import pandas as pd
import pytest

from engine.datasets import _layout, _tables
from engine.errors import ManifestError, Refused
from tests.engine.datasets import trees


def test_every_cell_is_text(tmp_path: Path) -> None:
    path = trees.lines(tmp_path / "t.csv", ["a,b,c", '007,nan,"x, y"', ",NA,True", "1e3,None,é"])
    frame = _tables.read(path, ("a", "c"))
    assert frame.to_dict("list") == {
        "a": ["007", "", "1e3"],
        "b": ["nan", "NA", "None"],
        "c": ["x, y", "True", "é"],
    }


def test_a_comma_at_the_end_of_each_line(tmp_path: Path) -> None:
    frame = _tables.read(trees.lines(tmp_path / "t.csv", ["a,b,", "1,2,"]), ("a",))
    assert frame.to_dict("list") == {"a": ["1"], "b": ["2"]}


def test_no_header(tmp_path: Path) -> None:
    frame = _tables.read(
        trees.lines(tmp_path / "t.csv", ["n001.tif,Normal"]), ("file", "class"), header=False
    )
    assert frame.to_dict("list") == {"file": ["n001.tif"], "class": ["Normal"]}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (["a,b", "1,2", "1"], "Row #3: Expected 2 columns, got 1"),
        (["a,b", "1,2,3"], "Expected 2 columns, got 3"),
        (["a,,b", "1,2,3"], "without a name"),
        (["a,a", "1,2"], "names 'a' twice"),
        (["b", "1"], "has no column 'a'; it has 'b'"),
        (["a"], "has no rows"),
        ([], "has no column|without a name"),
    ],
)
def test_bad_tables(tmp_path: Path, rows: list[str], says: str) -> None:
    with pytest.raises(ManifestError, match=says):
        _tables.read(trees.lines(tmp_path / "t.csv", rows), ("a",))


def test_absent_table(tmp_path: Path) -> None:
    for header in (True, False):
        with pytest.raises(ManifestError, match=r"t\.csv"):
            _tables.read(tmp_path / "t.csv", ("a",), header=header)


def test_extract_is_that_of_pandas() -> None:
    texts = pd.Series(["10_left", "x", "3_right", ""])
    pattern = r"^(?P<n>\d+)_(?P<eye>left|right)$"
    truth = texts.str.extract(pattern)
    found = _tables.extract(texts, pattern)
    assert found.where(found.notna(), None).to_dict("list") == truth.where(truth.notna(), None).to_dict(
        "list"
    )


def test_refused_rows_are_shown(tmp_path: Path) -> None:
    values = pd.Series(["a", "b", "c", "d", "e"])
    _tables.refuse_rows(tmp_path, values == "x", values, "none")
    with pytest.raises(
        ManifestError, match=r"4 rows against the rule: row 2: 'b'; row 3: 'c'; row 4: 'd'\. R"
    ):
        _tables.refuse_rows(tmp_path, values != "a", values, "R")


def test_a_folder_that_cannot_be_listed(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="No such file"):
        _layout.entries(tmp_path / "absent")
