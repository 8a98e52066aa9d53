"""The matrix: every number is its record's, modes stand side by side, marks and bold mean what they say."""

from dataclasses import replace

import pytest

from engine.report.page.blocks import DataTable, Details, Section
from engine.report.page.inputs import Gap, PageInput, PageOptions
from engine.report.page.sections.matrix import sections
from tests.page_records import comparison, entry_of, fewshot, page, probe

OPTIONS = PageOptions()


def tables(given: PageInput) -> list[DataTable]:
    first: Section = sections(given, OPTIONS)[0]
    return [one for one in first.blocks if isinstance(one, DataTable)]


def test_numbers_and_intervals_are_those_of_the_records() -> None:
    value, low, high = 0.8123456789, 0.7012345678, 0.9034567891
    (own,) = tables(page(probe("vgg", value, low, high), fewshot("vgg", 0.75, 0.0125)))
    assert [(c.group, c.title) for c in own.columns] == [
        ("", "model"),
        ("linear probe", "balanced accuracy"),
        ("2-way 5-shot", "accuracy"),
    ]
    (row,) = own.rows
    assert (row[1].number, row[1].low, row[1].high) == (value, low, high)
    assert row[1].text == "0.812 (0.701–0.903)"
    assert (row[2].number, row[2].low, row[2].high) == (0.75, 0.75 - 0.0125, 0.75 + 0.0125)


def test_modes_have_columns_of_their_own() -> None:
    (own,) = tables(page(probe("vgg", 0.8), probe("vgg", 0.6, mode="as-published")))
    assert [c.title for c in own.columns] == ["model", "balanced accuracy", "balanced accuracy, as published"]
    assert [value.number for value in own.rows[0][1:]] == [0.8, 0.6]


def test_an_undefined_number_has_its_reason() -> None:
    metrics = {"test": {"mean_per_class_accuracy": None, "reason": "one class only"}}
    (own,) = tables(page(probe("vgg", None, metrics=metrics)))
    value = own.rows[0][1]
    assert (value.text, value.number, value.reason) == ("undefined", None, "one class only")


def test_the_best_set_is_bold_where_models_were_compared() -> None:
    entries = [probe("a", 0.9), probe("b", 0.88), probe("c", 0.6)]
    (plain,) = tables(page(*entries))
    assert not any(value.strong for row in plain.rows for value in row)
    (own,) = tables(page(*entries, comparison(entries, [0.9, 0.88, 0.6], ["a", "b"], [])))
    assert {row[0].text: row[1].strong for row in own.rows} == {"a": True, "b": True, "c": False}
    assert any("Holm" in note for note in own.notes)
    (all_alike,) = tables(page(*entries, comparison(entries, [0.9, 0.88, 0.6], ["a", "b", "c"], [])))
    assert not any(value.strong for row in all_alike.rows for value in row)


def test_a_number_below_a_control_is_marked_and_the_control_has_a_row() -> None:
    below = [
        {
            "metric": "mean_per_class_accuracy",
            "finding": "",
            "control": "image_statistics",
            "control_value": 0.7,
        }
    ]
    controls = [
        {
            "name": "image_statistics",
            "title": "image statistics",
            "missing": False,
            "mean_per_class_accuracy": 0.7,
        },
        {"name": "metadata", "title": "metadata alone", "missing": True, "reason": "no column"},
    ]
    (own,) = tables(page(probe("vgg", 0.6, metrics={"below_control": below, "controls": controls})))
    value = own.rows[0][1]
    assert value.text.startswith("0.600†") and value.tone == "error" and "0.700" in value.reason
    assert [row[0].text for row in own.rows] == ["vgg", "control: image statistics"]
    assert own.rows[1][1].number == 0.7
    assert [note[0] for note in own.notes] == ["†"]


def test_settings_that_differ_are_named_and_seeds_are_not_mixed() -> None:
    base = fewshot("vgg", 0.7, 0.01)
    assert base.record is not None
    again = replace(
        base.record, asked={**base.record.asked, "seed": 1}, metrics={"accuracy": 0.72, "ci95": 0.01}
    )
    (own,) = tables(page(base, replace(base, id="again", path="records/again.json", record=again)))
    assert [c.group for c in own.columns] == ["", "2-way 5-shot, seed 0", "2-way 5-shot, seed 1"]
    assert [value.number for value in own.rows[0][1:]] == [0.7, 0.72]


def test_with_many_data_sets_each_protocol_has_a_table() -> None:
    given = page(probe("vgg", 0.8), fewshot("vgg", 0.7, 0.01)).sources[0]
    own = tables(PageInput("p", tuple(replace(given, name=name) for name in ("one", "two", "three"))))
    assert [one.id for one in own] == ["table-results-linear-probe", "table-results-2-way-5-shot"]
    assert [c.title for c in own[0].columns] == ["model", "one", "two", "three"]


def test_models_stand_in_the_order_of_the_study_and_others_by_name() -> None:
    given = page(*(probe(name, 0.5) for name in ("zeta", "alpha", "beta", "last")), models=("zeta", "beta"))
    (own,) = tables(given)
    assert [row[0].text for row in own.rows] == ["zeta", "beta", "alpha", "last"]


def test_a_cell_that_failed_says_so_in_its_row_and_column() -> None:
    entry = probe("vgg", 0.8)
    gaps = (
        Gap("xrays", "densenet", "own name", "default", 0, "failed", "out of memory"),
        Gap("xrays", "densenet", "own name", "default", 1, "missing", "of another seed"),
        Gap("xrays", "", "own name", "default", 0, "failed", "a comparison"),
    )
    given = page(entry, fewshot("vgg", 0.7, 0.01), gaps=gaps, evaluations={entry.id: "own name"})
    (own,) = tables(given)
    rows = {row[0].text: row for row in own.rows}
    assert set(rows) == {"densenet", "vgg"}
    assert [c.group for c in own.columns] == ["", "own name", "2-way 5-shot"]
    assert (rows["densenet"][1].text, rows["densenet"][1].reason) == ("failed", "out of memory")
    assert rows["densenet"][2].text == "–"


def test_numbers_of_other_kinds_are_no_results() -> None:
    asked, metrics = {"transform": "h_flip", "mode": "default"}, {"cosine": 0.82, "ci95": 0.01, "n": 20}
    assert not sections(page(entry_of("invariance", "vgg", asked, metrics)), OPTIONS)
    assert not sections(page(), OPTIONS)


def test_all_metrics_are_listed_as_recorded() -> None:
    (section,) = sections(page(probe("vgg", 0.8, 0.7, 0.9)), OPTIONS)
    (more,) = [one for one in section.blocks if isinstance(one, Details)]
    (own,) = more.blocks
    assert isinstance(own, DataTable)
    assert [c.title for c in own.columns] == ["evaluation", "mode", "model", "accuracy", "balanced accuracy"]
    assert [(v.number, v.low, v.high) for v in own.rows[0][3:]] == [(0.8, None, None), (0.8, 0.7, 0.9)]


@pytest.mark.parametrize(("off", "interval"), [(1e-15, True), (0.01, False)])
def test_an_interval_is_of_the_same_number_but_for_rounding(off: float, interval: bool) -> None:
    """Means over findings are summed in another order by a comparison; other findings give another mean."""
    entries = [probe("a", 0.7), probe("b", 0.6)]
    entries = [
        replace(one, record=replace(one.record, metrics={"test": {"mean_per_class_accuracy": value}}))
        for one, value in zip(entries, (0.7, 0.6), strict=True)
        if one.record is not None
    ]
    own = comparison(entries, [0.7 + off, 0.6 + off], ["a"], [("a", "b", 0.1, 0.05, 0.2, 0.01, True)])
    (section,) = sections(page(*entries, own), PageOptions())
    table = next(block for block in section.blocks if isinstance(block, DataTable))
    assert [(row[1].low is not None) for row in table.rows] == [interval, interval]
