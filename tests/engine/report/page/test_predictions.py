"""Errors of predictions, counted by hand: classes and findings, ties, and cells that nothing is known of."""

import math

import pyarrow as pa

from engine.report.page.predictions import _of_classes, _of_findings
from engine.report.page.repeats import first_repeat

NAN = math.nan


def test_errors_of_classes() -> None:
    table = pa.table(
        {
            "row": [4, 7, 9, 12],
            "image_id": ["a", "b", "c", "d"],
            "truth": ["x", "x", "y", "y"],
            "predicted": ["x", "y", "x", "x"],
            "score.x": [0.8, 0.05, 0.7, 0.95],
            "score.y": [0.2, 0.95, 0.3, 0.05],
        }
    )
    mistakes = _of_classes(table, 2)
    assert (mistakes.predictions, mistakes.errors, mistakes.confident) == (4, 3, 2)
    # Equally sure: the earlier row first.
    assert [(one.row, one.image_id, one.probability) for one in mistakes.worst] == [
        (7, "b", 0.95),
        (12, "d", 0.95),
    ]
    assert [(one.truth, one.predicted) for one in mistakes.worst] == [("x", "y"), ("y", "x")]


def test_errors_of_findings_leave_out_what_is_not_known() -> None:
    table = pa.table(
        {
            "row": [0, 1, 2],
            "image_id": ["a", "b", "c"],
            "truth.edema": [1.0, 0.0, NAN],
            "predicted.edema": [0.0, 0.0, NAN],
            "score.edema": [0.02, 0.4, NAN],
            "truth.mass": [0.0, NAN, 1.0],
            "predicted.mass": [1.0, NAN, 0.0],
            "score.mass": [0.6, NAN, 0.45],
        }
    )
    mistakes = _of_findings(table, ["edema", "mass"], 5)
    assert (mistakes.predictions, mistakes.errors, mistakes.confident) == (4, 3, 1)
    assert [(one.row, one.truth, one.predicted, round(one.probability, 3)) for one in mistakes.worst] == [
        (0, "edema: yes", "edema: no", 0.98),
        (0, "mass: no", "mass: yes", 0.6),
        (2, "mass: yes", "mass: no", 0.55),
    ]


def test_without_probabilities_there_is_a_reason() -> None:
    table = pa.table({"row": [0], "image_id": ["a"], "truth": ["x"], "predicted": ["y"]})
    assert _of_classes(table, 1).reason == "the predictions have no probabilities"


def test_of_several_repeats_the_first_counts() -> None:
    table = pa.table({"row": [0, 1, 0, 1], "repeat": [1, 1, 2, 2]})
    assert first_repeat(table).column("row").to_pylist() == [0, 1]
    assert first_repeat(table.select(["row"])).num_rows == 4
    assert first_repeat(table.slice(0, 0)).num_rows == 0
