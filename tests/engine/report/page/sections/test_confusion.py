"""Confusion matrices: counts and recalls as scikit-learn computes them."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, recall_score

from engine.report.page.blocks import Chart, Details, Paragraph
from engine.report.page.inputs import PageOptions
from engine.report.page.sections.confusion import sections
from stores.json_types import Json
from tests.engine.report.page.drawings import drawings
from tests.page_records import entry_of, page

TRUTH = np.repeat([0, 1, 2], [8, 6, 4])
ANSWERS = np.array([0] * 8 + [1] * 3 + [2] * 2 + [0] + [2] * 3 + [1])
NAMES: list[Json] = ["covid19", "no_finding", "pneumonia"]


def chart(body: dict[str, Json], *others: dict[str, Json]) -> Chart:
    entries = [entry_of("probe", f"m{i}", {}, own) for i, own in enumerate((body, *others))]
    (section,) = sections(page(*entries), PageOptions())
    (more,) = (block for block in section.blocks if isinstance(block, Details))
    (one,) = more.blocks
    assert isinstance(one, Chart)
    return one


def matrix() -> dict[str, Json]:
    return {"classes": NAMES, "test": {"confusion_matrix": confusion_matrix(TRUTH, ANSWERS).tolist()}}


def test_counts_and_recalls() -> None:
    one = chart(matrix())
    assert one.table is not None
    rows = one.table.rows
    assert [row[3].number for row in rows] == pytest.approx(recall_score(TRUTH, ANSWERS, average=None))
    counts = [[cell.number for cell in row[4:]] for row in rows]
    assert counts == confusion_matrix(TRUTH, ANSWERS).tolist()


def test_the_most_frequent_confusion_is_said() -> None:
    assert (
        "Most often no_finding is taken for pneumonia: 2 images, 33% of that class (m0)."
        in chart(matrix()).alt
    )


def test_a_perfect_model_confuses_nothing() -> None:
    body: dict[str, Json] = {"classes": NAMES, "test": {"confusion_matrix": np.eye(3).tolist()}}
    assert "No image is taken for another class." in chart(body).alt


def test_every_model_has_a_panel() -> None:
    assert [d.texts("heading")[0] for d in drawings(chart(matrix(), matrix()).svg)] == ["m0", "m1"]


@pytest.mark.parametrize("rows", [[], [[]], [[None, 1], [2]], [["x"], 3], "damaged"])
def test_odd_matrices_do_not_stop_the_page(rows: Json) -> None:
    entry = entry_of("probe", "m", {}, {"classes": NAMES, "test": {"confusion_matrix": rows}})
    sections(page(entry), PageOptions())


def test_earlier_records_are_named() -> None:
    entries = (entry_of("probe", "new", {}, matrix()), entry_of("probe", "old", {}, {"test": {}}))
    (section,) = sections(page(*entries), PageOptions())
    assert any("old" in block.text for block in section.blocks if isinstance(block, Paragraph))
