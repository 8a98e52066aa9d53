"""ROC and precision-recall curves: corners and areas as scikit-learn computes them from the predictions."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from engine.report.page.blocks import Chart, Paragraph
from engine.report.page.inputs import PageInput, PageOptions, Source
from engine.report.page.sections.curves import sections
from stores.bank.record_index import RecordEntry
from stores.bank.records import Attachment, RunRecord
from stores.json_types import Json, JsonObject
from tests.engine.report.page.drawings import Drawing, drawings

Values = NDArray[Any]


def predicted(
    bank: Path, model: str, columns: dict[str, Values], metrics: "JsonObject | None" = None, **asked: Json
) -> RecordEntry:
    """Write a record with predictions beside it."""
    data = io.BytesIO()
    pq.write_table(pa.table(columns), data)
    rows = len(next(iter(columns.values())))
    record = RunRecord(
        "probe",
        {"model": model, "label": "label", **asked},
        {},
        metrics or {},
        {},
        "2026-11-30T12:00:00+00:00",
        attached={"": Attachment(data.getvalue(), rows)},
    )
    path = record.write(bank)
    return RecordEntry(path.name[-13:-5], f"records/{path.name}", record, None, model)


def answers(seed: int, n: int = 200, ties: bool = False) -> tuple[Values, Values]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n)
    score = np.clip(0.3 * truth + rng.normal(0.35, 0.2, n), 0, 1)
    return truth, np.round(score, 1) if ties else score


def two_classes(truth: Values, score: Values) -> dict[str, Values]:
    names = np.array(["no", "yes"])[truth]
    return {"truth": names, "score.no": 1 - score, "score.yes": score}


def drawn(bank: Path, *entries: RecordEntry) -> tuple[Chart, list[Drawing]]:
    page = PageInput("p", (Source("xrays", bank, entries),))
    (section,) = sections(page, PageOptions())
    (chart,) = (block for block in section.blocks if isinstance(block, Chart))
    return chart, drawings(chart.svg)


def distance_to(points: Values, x: Values, y: Values) -> float:
    """Return the largest distance of points from a line of corners, by a fine sampling of its segments."""
    share = np.linspace(0, 1, 60)[:, None]
    x, y = x[:-1] + share * np.diff(x), y[:-1] + share * np.diff(y)
    fine = np.stack([x, y], -1).reshape(-1, 2)
    return float(max(np.hypot(*(fine - point).T).min() for point in points))


@pytest.mark.parametrize("ties", [False, True])
def test_curves_are_those_of_scikit_learn(tmp_path: Path, ties: bool) -> None:
    truth, score = answers(0, ties=ties)
    _, (roc, precision) = drawn(tmp_path, predicted(tmp_path, "lite", two_classes(truth, score)))
    for drawing, (x, y) in (
        (roc, roc_curve(truth, score)[:2]),
        (precision, precision_recall_curve(truth, score)[1::-1]),
    ):
        ((*line,), *_) = drawing.corners("line", "series-1")
        across, up = zip(*line, strict=True)
        own = np.stack([drawing.numbers("middle", list(across)), drawing.numbers("end", list(up))], -1)
        if drawing is precision:  # steps, as average precision sums them; without the end that has no image
            x, y = np.append(np.repeat(x[:-1], 2)[1:], 0), np.repeat(y[:-1], 2)
        unit = 1 / 290
        assert distance_to(own, np.asarray(x), np.asarray(y)) <= 0.02 * unit + 1 / 60 * unit + 2e-3
        assert distance_to(np.stack([x, y], -1), own[:, 0], own[:, 1]) <= 0.35 * unit + 3e-3


@pytest.mark.parametrize("ties", [False, True])
def test_areas_are_those_of_scikit_learn(tmp_path: Path, ties: bool) -> None:
    truth, score = answers(1, ties=ties)
    chart, (roc, precision) = drawn(tmp_path, predicted(tmp_path, "lite", two_classes(truth, score)))
    assert chart.table is not None
    (row,) = chart.table.rows
    assert row[4].number == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
    assert row[5].number == pytest.approx(average_precision_score(truth, score), abs=1e-12)
    assert any(f"{roc_auc_score(truth, score):.3f}" in text for text in roc.texts())
    assert any(f"{average_precision_score(truth, score):.3f}" in text for text in precision.texts())
    assert (row[2].number, row[3].number) == (truth.sum(), len(truth))


def test_a_perfect_and_a_useless_model(tmp_path: Path) -> None:
    truth, _ = answers(2)
    entries = [
        predicted(tmp_path, "perfect", two_classes(truth, truth.astype(float))),
        predicted(tmp_path, "useless", two_classes(truth, np.full(len(truth), 0.5))),
    ]
    chart, (roc, _) = drawn(tmp_path, *entries)
    assert chart.table is not None
    assert [row[4].number for row in chart.table.rows] == [1.0, 0.5]
    lines = [piece for piece in roc.corners("line") if len(piece) == 3]
    assert lines
    assert "perfect" in chart.alt


def test_several_classes_have_curves_each(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, 90)
    scores = rng.dirichlet([1, 1, 1], 90) + np.eye(3)[truth] * 0.3
    columns = {"truth": np.array(["a", "b", "c"])[truth]}
    columns |= {f"score.{name}": scores[:, i] for i, name in enumerate("abc")}
    chart, own = drawn(tmp_path, predicted(tmp_path, "lite", columns))
    assert len(own) == 6
    assert chart.table is not None
    expected = [roc_auc_score(truth == i, scores[:, i]) for i in range(3)]
    assert [row[4].number for row in chart.table.rows] == pytest.approx(expected, abs=1e-12)


def test_findings_leave_out_masked_images(tmp_path: Path) -> None:
    truth, score = answers(4, 60)
    score[::5] = np.nan
    columns = {"truth.mass": truth, "score.mass": score}
    chart, _ = drawn(tmp_path, predicted(tmp_path, "lite", columns, {"findings": [{"label": "mass"}]}))
    assert chart.table is not None
    there = np.isfinite(score)
    (row,) = chart.table.rows
    assert row[4].number == pytest.approx(roc_auc_score(truth[there], score[there]), abs=1e-12)


def test_one_class_only_has_no_curve_and_says_why(tmp_path: Path) -> None:
    chart, (roc, _) = drawn(
        tmp_path, predicted(tmp_path, "lite", two_classes(np.ones(9, int), np.linspace(0, 1, 9)))
    )
    assert chart.table is not None
    (row,) = chart.table.rows
    assert row[4].text == "undefined"
    assert row[4].reason
    assert any("undefined" in text for text in roc.texts())


def test_missing_or_damaged_predictions_are_named(tmp_path: Path) -> None:
    truth, score = answers(5)
    good, bad = (predicted(tmp_path, name, two_classes(truth, score)) for name in ("good", "bad"))
    (tmp_path / bad.path.replace(".json", ".parquet")).write_bytes(b"damaged")
    none = RecordEntry(
        "x", "records/x.json", RunRecord("probe", {"label": "label"}, {}, {}, {}, ""), None, "none"
    )
    page = PageInput("p", (Source("xrays", tmp_path, (good, bad, none)),))
    (section,) = sections(page, PageOptions())
    said = " ".join(block.text for block in section.blocks if isinstance(block, Paragraph))
    assert "bad" in said
    assert "none" in said


def test_thousands_of_images_take_few_bytes(tmp_path: Path) -> None:
    truth, score = answers(6, 20_000)
    chart, _ = drawn(tmp_path, predicted(tmp_path, "lite", two_classes(truth, score)))
    assert len(chart.svg) < 12_000


def test_an_image_of_several_repeats_counts_once(tmp_path: Path) -> None:
    truth, first = answers(3, n=40)
    columns = two_classes(np.tile(truth, 2), np.concatenate([first, 1 - first]))
    columns["repeat"] = np.repeat([0, 1], 40)
    chart, _ = drawn(
        tmp_path, predicted(tmp_path, "lite", columns, cross_validation={"folds": 5, "repeats": 2})
    )
    assert chart.table is not None
    (row,) = chart.table.rows
    assert (row[2].number, row[3].number) == (truth.sum(), 40)
    assert row[4].number == pytest.approx(roc_auc_score(truth, first), abs=1e-12)
    assert any("each image is scored once" in note for note in chart.notes)
