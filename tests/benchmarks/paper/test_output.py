"""Tables on the terminal and as files of every format."""

import csv
import io

import pytest

from benchmarks.paper.__main__ import main
from benchmarks.paper.output import markdown_of
from benchmarks.paper.pages import page, titles
from engine.report.page.blocks import Column, DataTable, Value

TABLES = [name for name in titles() if name.startswith("table")]


@pytest.mark.parametrize("name", TABLES)
def test_tables_fit_80_columns(name, capsys):
    assert main([name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 8
    assert max(map(len, lines)) <= 80


def test_formats_have_the_same_cells(tmp_path):
    texts = {}
    for ending in ("csv", "tex", "md", "html"):
        out = tmp_path / f"t.{ending}"
        assert main(["table3", "-o", str(out)]) == 0
        texts[ending] = out.read_text()
    rows = list(csv.DictReader(io.StringIO(texts["csv"])))
    byol = next(row for row in rows if row["model"] == "BYOL")
    # As printed in the paper: 70.98 +- 0.67, the highest on Montgomery.
    assert [float(byol[name]) for name in ("Montgomery", "Montgomery low", "Montgomery high")] == [
        70.98,
        pytest.approx(70.31),
        pytest.approx(71.65),
    ]
    assert r"\textbf{70.98 $\pm$ 0.67}" in texts["tex"]
    assert "**70.98 ± 0.67**" in texts["md"]
    assert "70.98" in texts["html"] and texts["html"].lower().startswith("<!doctype html>")


def test_markdown_escapes_what_would_break_a_row():
    table = DataTable(
        "t", "c", (Column("a"), Column("b", numeric=True)), ((Value("x|y\n<z"), Value("1", 1.0)),)
    )
    assert markdown_of(table) == "c\n\n| a | b |\n| --- | ---: |\n| x\\|y &lt;z | 1 |\n"


def test_a_table_is_not_drawn_and_an_existing_file_not_replaced(tmp_path, capsys):
    assert main(["table3", "-o", str(tmp_path / "t.png")]) == 2
    assert "is a table" in capsys.readouterr().err
    out = tmp_path / "t.csv"
    out.write_text("mine")
    assert main(["table3", "-o", str(out)]) == 2
    assert out.read_text() == "mine"
    assert main(["table3", "-o", str(out), "--force"]) == 0
    assert out.read_text() != "mine"


def test_an_unknown_page_and_a_missing_bank_are_refused(tmp_path, capsys):
    assert main(["table9"]) == 2
    assert main(["table3", "--from", str(tmp_path / "no.bank")]) == 2
    assert "remedy" in capsys.readouterr().err


def test_pages_have_titles():
    assert all(titles().values())
    assert all(page(name).title for name in TABLES)
