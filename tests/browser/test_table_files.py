"""Files of the page's buttons are those of `embank report --tables`, written once more in JavaScript."""

import csv
import io
import math
from itertools import chain
from pathlib import Path

import pytest

from engine.report.page.blocks import Column, DataTable, Page, Section, Value
from engine.report.page.render import render_page
from engine.report.page.tables import csv_of, tex_of
from tests.browser.conftest import HOSTILE, RIGHT_TO_LEFT, Open

pytestmark = pytest.mark.slow

TABLES = (
    DataTable(
        "numbers",
        "Numbers & 100 % of <them>",
        (
            Column("model"),
            Column("a_b", True, group="one"),
            Column("c", True, group="one"),
            Column("d", True),
        ),
        (
            (Value("x"), Value("0.3", 0.1 + 0.2, 1e-7, 1e22), Value("–", None, reason="=1"), Value("1", 1.0)),
            (Value("y_z"), Value("−2", -2.0), Value("5", 5.0), Value("∞", math.inf, strong=True)),
            (Value(""), Value("0.5 ± 0.1", 0.5, 0.4, 0.6, strong=True), Value("", None), Value("0", -0.0)),
        ),
    ),
    DataTable(
        "texts",
        RIGHT_TO_LEFT,
        (Column(HOSTILE), Column("=cmd()"), Column('"quoted", and more')),
        (
            (Value(HOSTILE), Value("=1+1"), Value('a "b", c')),
            (Value("-x"), Value("@y\nz"), Value(r"\textbf{}~^$#&%")),
            (Value("κ² ≤ 3 × 10 → †"), Value("\ttab", strong=True), Value("+", link="numbers")),
        ),
    ),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, open_page: Open) -> dict[str, str]:
    """File's name -> contents, from the buttons."""
    path = tmp_path_factory.mktemp("tables") / "p.html"
    path.write_bytes(render_page(Page("p", sections=(Section("s", "s", TABLES),))))
    saved = {}
    with open_page(path) as opened:
        for table in TABLES:
            for ending in ("csv", "tex"):
                with opened.page.expect_download() as waiting:
                    opened.page.locator(f"#{table.id} [data-save={ending}]").click()
                saved[waiting.value.suggested_filename] = Path(waiting.value.path()).read_bytes().decode()
    return saved


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.id)
def test_latex_is_the_same(table: DataTable, files: dict[str, str]) -> None:
    assert files[f"{table.id}.tex"] == tex_of(table)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.id)
def test_csv_has_the_same_cells(table: DataTable, files: dict[str, str]) -> None:
    """Numbers may be spelled otherwise, e.g. 1e-7 for 1e-07."""
    theirs, ours = (list(csv.reader(io.StringIO(text))) for text in (files[f"{table.id}.csv"], csv_of(table)))
    assert [len(row) for row in theirs] == [len(row) for row in ours]
    for one, other in zip(chain(*theirs), chain(*ours), strict=True):
        assert one == other or float(one) == float(other)
