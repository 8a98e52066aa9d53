"""Tables as CSV and LaTeX: full precision, nothing that a spreadsheet or LaTeX would take for a command."""

import csv
import io
import math
import re

from hypothesis import given
from hypothesis import strategies as st

from engine.report.page.blocks import Column, DataTable, Value
from engine.report.page.tables import csv_of, document, escaped, heads, tex_of

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


def table(*rows: tuple[Value, ...], columns: tuple[Column, ...] | None = None) -> DataTable:
    known = columns or (Column("model"), Column("accuracy", numeric=True))
    return DataTable("table-x", "A caption", known, rows)


def rows_of(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


@given(NUMBERS, NUMBERS, NUMBERS)
def test_a_number_reads_back_as_it_was(number: float, low: float, high: float) -> None:
    names, row = rows_of(csv_of(table((Value("m"), Value("rounded", number, low, high)))))
    assert names == ["model", "accuracy", "accuracy low", "accuracy high"]
    assert [float(cell) for cell in row[1:]] == [number, low, high]


def test_an_undefined_number_is_empty_and_has_its_reason() -> None:
    text = csv_of(
        table((Value("m"), Value("–", math.nan, reason="one class")), (Value("n"), Value("1", 1.0)))
    )
    assert rows_of(text) == [
        ["model", "accuracy", "accuracy reason"],
        ["m", "", "one class"],
        ["n", "1", ""],
    ]
    body = document(table((Value("m"), Value("–", math.nan, reason="one class"))))
    assert body["rows"] == [["m", ["–", None, None, None, None, "one class"]]]


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20))
def test_a_text_is_no_formula_and_stays_in_its_cell(text: str) -> None:
    _, (cell, number) = rows_of(csv_of(table((Value(text), Value("-1", -1.0)))))
    assert not cell.startswith(("=", "+", "-", "@"))
    assert number == "-1"


def test_columns_of_a_group_are_named_after_it() -> None:
    grouped = (
        Column("model"),
        Column("default", True, group="probe"),
        Column("published", True, group="probe"),
    )
    own = table((Value("m"), Value("1", 1.0), Value("2", 2.0)), columns=grouped)
    assert rows_of(csv_of(own))[0] == ["model", "probe: default", "probe: published"]
    assert [(span.title, span.indices) for span in heads(own).spans] == [("", (0,)), ("probe", (1, 2))]
    assert r" & \multicolumn{2}{c}{probe} \\" in tex_of(own)
    assert r"\cmidrule(lr){2-3}" in tex_of(own)


@given(st.text(max_size=30))
def test_latex_prints_special_characters(text: str) -> None:
    made = escaped(text)
    rest = re.sub(
        r"\\(?:[&%$#_{}]|,)|\\(?:textbackslash|textasciitilde|textasciicircum|dots)\{\}|\$[^$]*\$", "", made
    )
    assert not set(rest) & set("\\&%$#_{}^")
    assert rest.count("~") == text.count("\u00a0")
    assert "\n" not in made


def test_latex_has_a_cell_for_every_column_and_closes_what_it_opens() -> None:
    made = tex_of(
        table((Value("a_b & c"), Value("0.750 (0.5–0.9)", 0.75, strong=True)), (Value("x"), Value("1")))
    )
    body = made.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert body == [r"a\_b \& c & \textbf{0.750 (0.5--0.9)} \\", r"x & 1 \\"]
    assert all(len(re.findall(r"(?<!\\)&", line)) == 1 for line in body)
    opened = re.findall(r"\\begin\{(\w+)\}", made)
    assert opened == ["table", "tabular"] == re.findall(r"\\end\{(\w+)\}", made)[::-1]
    assert r"\begin{tabular}{lr}" in made and made.count("{") == made.count("}")
    assert made.isascii()
