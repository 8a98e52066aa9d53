"""The published tables, redrawn, against the digits of the CSV files, read with the csv module alone."""

import csv
from pathlib import Path

import pytest

from benchmarks.paper.discrepancies import cell_notes, disagreements, method_notes
from benchmarks.paper.names import DATASET_LABELS, MODEL_LABELS
from benchmarks.paper.pages import page, titles
from benchmarks.paper.results_table import NOTHING, results_table
from benchmarks.paper.values import PUBLISHED, Value, Values, published_results, published_tables

#: Page -> file, and cells in it.
TABLES = {
    "table3": ("table3_few_shot", 80),
    "table4": ("table4_many_shot", 36),
    "tablea1": ("tableA1_rotation_hue_invariance", 20),
    "tablea2": ("tableA2_hflip_invariance", 28),
    "tablea3": ("tableA3_multiview_invariance", 12),
    "tablea4": ("tableA4_lpips_alex", 90),
    "tablea5": ("tableA5_lpips_squeeze", 90),
    "tablea6": ("tableA6_lpips_vgg", 90),
    "tablea7": ("tableA7_attentive_diffusion", 90),
}


def printed(name: str) -> list[dict[str, str]]:
    with Path(PUBLISHED / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def heading(metric: str) -> str:
    return {"rotation": "rotation", "hue": "hue", "linear": "linear", "finetune": "finetuned"}.get(
        metric.partition("_")[0], ""
    )


@pytest.mark.parametrize("name", TABLES)
def test_every_printed_cell_stands_in_its_table_to_the_digit(name):
    file, count = TABLES[name]
    table = page(name).table(published_tables())
    shown = {
        (row[0].text.removesuffix(" (best variant)"), column.group, column.title): value
        for row in table.rows
        for column, value in zip(table.columns[2:], row[2:], strict=True)
        if value.text != NOTHING
    }
    expected = printed(file)
    assert len(expected) == count == len(shown)
    for row in expected:
        value = shown[MODEL_LABELS[row["model"]], heading(row["metric"]), DATASET_LABELS[row["dataset"]]]
        assert value.text == row["value"] + f" ± {row['ci95']}" * bool(row["ci95"])
        assert value.number == float(row["value"])
        if row["ci95"]:
            assert value.high - value.number == pytest.approx(float(row["ci95"]))


def test_the_cells_are_the_536_of_the_paper():
    assert sum(count for _, count in TABLES.values()) == 536 == len(published_tables())


def test_the_best_numbers_of_tables_3_and_a4_are_emphasised():
    best = {}
    for name in ("table3", "tablea4"):
        table = page(name).table(published_tables())
        best[name] = {
            column.title: row[0].text
            for i, column in enumerate(table.columns)
            for row in table.rows
            if row[i].strong
        }
    # Read off the printed tables: the highest accuracies, and the lowest distances.
    assert best["table3"]["Montgomery"] == "BYOL"
    assert best["table3"]["CheXpert"] == "MIMIC-CheXpert (best variant)"
    assert best["table3"]["ChestX"] == "MIMIC-CheXpert (best variant)"
    assert set(best["tablea4"]) == {
        DATASET_LABELS[name] for name in {r["dataset"] for r in printed("tableA4_lpips_alex")}
    }
    lowest = min(
        (row for row in printed("tableA4_lpips_alex") if row["dataset"] == "imagenet"),
        key=lambda row: float(row["value"]),
    )
    assert best["tablea4"]["ImageNet"].removesuffix(" (best variant)") == MODEL_LABELS[lowest["model"]]


def test_a_view_of_checkpoints_is_not_the_best_beside_them():
    few, metric = "shenzhen", "few_shot_2way_20shot_accuracy_pct"
    numbers = {"byol": 70.0, "moco-cxr-r18": 75.0, "moco-cxr-d121": 60.0, "moco-cxr": 75.0}
    table = results_table("Table 3", Values(Value(model, few, metric, x) for model, x in numbers.items()))
    column = [c.title for c in table.columns].index("Shenzhen")
    strong = [row[0].text for row in table.rows if row[column].strong]
    assert "MoCo-CXR (r18)" in strong
    assert any("no model" in note for note in table.notes)


def test_exactly_the_listed_cells_differ_from_the_stored_results():
    differing = {
        (cell.source, cell.model, cell.dataset, cell.metric, field)
        for cell, field in disagreements(published_tables(), published_results())
    }
    listed = {(note.table, note.model, note.dataset, note.metric, note.field) for note in cell_notes()}
    assert differing == listed
    assert len(listed) == 10  # 526 cells agree, 8 differ, 2 have no stored counterpart


def test_the_listed_numbers_are_those_of_table_and_stored_results():
    from benchmarks.paper.discrepancies import largest

    for note in cell_notes():
        cell = published_tables().get(note.model, note.dataset, note.metric)
        stored = largest(note.model, note.dataset, note.metric, published_results())
        texts = [
            "" if one is None else one.text if note.field == "value" else one.ci95_text
            for one in (cell, stored)
        ]
        assert texts == [note.paper, note.stored]


def test_a_changed_digit_is_a_disagreement():
    cell = published_tables().get("pirl", "bach", "few_shot_2way_20shot_accuracy_pct")
    changed = Value(
        cell.model,
        cell.dataset,
        cell.metric,
        cell.value + 0.01,
        cell.ci95,
        f"{cell.value + 0.01:.2f}",
        cell.source,
        ci95_text=cell.ci95_text,
    )
    assert not disagreements(Values([cell]), published_results())
    assert disagreements(Values([changed]), published_results()) == ((changed, "value"),)


def test_notes_on_methods_name_tables_that_there_are():
    names = {f"Table {name.removeprefix('table').upper()}" for name in TABLES}
    notes = method_notes()
    assert len({note.id for note in notes}) == len(notes) > 20
    assert {table for note in notes for table in note.tables} == names
    assert {note.measured_by for note in notes} == {"", "mode", "+native", "+same"}


def test_table_1_has_the_adapters_facts_beside_the_printed_ones():
    table = page("table1").table(Values([]))
    assert len(table.rows) == 8
    by_name = {row[0].text: row for row in table.rows}
    # Counted from the label tables of CheXpert and ChestX-ray14; the publishers' own of the others.
    assert [value.number for value in by_name["CheXpert"][3:7]] == [223_414, 2, 224_316, 14]
    assert [value.number for value in by_name["ChestX"][3:7]] == [25_848, 7, 112_120, 14]
    assert [value.number for value in by_name["BACH"][3:7]] == [400, 4, 400, 4]


def test_table_2_has_all_checkpoints_and_both_accuracies_on_imagenet():
    table = page("table2").table(published_results())
    assert len(table.rows) == 13
    by_name = {row[0].text: row for row in table.rows}
    assert [value.text for value in by_name["Supervised (r50)"][5:7]] == ["76.13", "77.20"]
    assert [value.text for value in by_name["MoCo-CXR (r18)"][5:7]] == [NOTHING, NOTHING]
    assert by_name["MIMIC-CheXpert (lr 1.0)"][2].text == "densenet121"


def test_all_tables_of_results_are_pages():
    assert {"table1", "table2", *TABLES} <= set(titles())
