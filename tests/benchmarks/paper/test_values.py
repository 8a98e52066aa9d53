"""The published values: complete, as printed, and looked up by name."""

import csv
import math

import pytest

from benchmarks.paper import names
from benchmarks.paper.values import PUBLISHED, TABLES, Value, Values, published_results, published_tables


def test_every_cell_of_the_tables_is_there_as_printed() -> None:
    tables = published_tables()
    assert len(tables) == 536  # as the paper has
    assert set(tables.models()) == {*names.IMAGENET_MODELS, *names.VARIANTS}
    assert set(tables.datasets()) == {*names.DATASETS, "imagenet"}
    byol = tables.get("byol", "montgomery", "few_shot_2way_20shot_accuracy_pct")
    assert byol is not None and (byol.text, byol.ci95_text, byol.source) == ("70.98", "0.67", "Table 3")
    assert (byol.value, byol.ci95, byol.decimals) == (70.98, 0.67, 2)
    other = tables.get("supervised-r50", "montgomery", "few_shot_2way_20shot_accuracy_pct")
    assert other is not None and byol.value - other.value == pytest.approx(8.67)  # "up to 10 % better"
    printed = [one.text for one in tables]
    assert any(text.endswith("0") for text in printed)  # digits, not numbers
    assert all(text == f"{one.value:.{one.decimals}f}" for text, one in zip(printed, tables, strict=True))


def test_every_checkpoint_is_there() -> None:
    results = published_results()
    assert len(results) == 940
    assert set(results.models()) == set(names.MODELS) and len(names.MODELS) == 13
    assert set(results.datasets()) == set(names.DATASET_LABELS)
    for dataset in names.DATASETS:
        few_shot = results.where(dataset=dataset, metric=names.few_shot(dataset))
        assert set(few_shot.models()) == set(names.MODELS)
        assert all(one.ci95 is not None and one.ci95 > 0 for one in few_shot)


@pytest.mark.parametrize("table", TABLES)
def test_a_table_is_its_file(table: str) -> None:
    with (PUBLISHED / f"{TABLES[table]}.csv").open(newline="") as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    mine = [one for one in published_tables() if one.source == table]
    assert [(v.model, v.dataset, v.metric, v.text, v.ci95_text) for v in mine] == rows


def test_values_are_filtered_and_looked_up() -> None:
    results = published_results()
    some = results.where(model=names.SSL, dataset="bach", metric="attentive_diffusion")
    assert sorted(some.models()) == sorted(names.SSL) and some.datasets() == ("bach",)
    assert some[0] == results.get(some[0].model, "bach", "attentive_diffusion")
    assert len(some[:2]) == 2 and some[:2].metrics() == ("attentive_diffusion",)
    assert results.get("byol", "bach", "no such metric") is None
    assert len(results.where(model=())) == 0
    assert "13 models" in repr(results)


def test_two_values_of_a_cell_are_an_error() -> None:
    one = Value("a", "b", "c", math.nan, reason="none")
    assert one.decimals is None
    with pytest.raises(ValueError, match="two values"):
        Values([one, Value("a", "b", "c", 1.0)])


def test_the_source_is_named() -> None:
    text = (PUBLISHED / "SOURCE.md").read_text()
    for fact in ("10.3390/jimaging8120320", "CC BY 4.0", "jonahanton/SSL_medicalimaging", "77fceef", "Anton"):
        assert fact in text
    for path in PUBLISHED.glob("*.csv"):
        assert path.name in text or path.stem.startswith(("table3", "table4", "tableA")), path
