"""Learning curves of finetunings: losses and scores where the record has them, the tested weights ringed."""

import pytest

from engine.evals.finetune.curve import Curve, CurvePoint
from engine.report.page.blocks import Chart, Paragraph
from engine.report.page.inputs import PageOptions
from engine.report.page.sections.learning_curves import sections
from stores.bank.record_index import RecordEntry
from stores.json_types import Json
from tests.engine.report.page.drawings import Drawing, drawings
from tests.page_records import entry_of, page

NAN = float("nan")
POINTS = (
    CurvePoint(0, 1e-4, NAN, 1.2, 0.4),
    CurvePoint(10, 2e-4, 1.1, 0.9, 0.6),
    CurvePoint(20, 1e-4, 0.7, 0.8, 0.9),
    CurvePoint(30, 1e-5, 0.3, 1.0, 0.7),
)


def finetune(model: str, points: tuple[CurvePoint, ...] = POINTS, mode: str = "default") -> RecordEntry:
    test: Json = {"accuracy": 0.75, "auroc": 0.9}
    body: dict[str, Json] = {
        "curve": Curve(points).to_dict(),
        "tested_step": 20,
        "select": "accuracy",
        "test": test,
    }
    return entry_of("finetune", model, {"mode": mode}, body)


def drawn(*entries: RecordEntry) -> tuple[Chart, list[Drawing]]:
    (section,) = sections(page(*entries), PageOptions())
    (chart,) = (block for block in section.blocks if isinstance(block, Chart))
    return chart, drawings(chart.svg)


def test_losses_and_scores_are_those_of_the_record() -> None:
    _, (losses, scores) = drawn(finetune("lite"))
    train, validation = (list(losses.centres("point", name)) for name in ("series-1", "series-2"))
    assert losses.numbers("middle", [x for x, _ in train]) == pytest.approx([10, 20, 30], abs=0.01)
    assert losses.numbers("end", [y for _, y in train]) == pytest.approx([1.1, 0.7, 0.3], abs=1e-3)
    assert losses.numbers("end", [y for _, y in validation]) == pytest.approx([1.2, 0.9, 0.8, 1.0], abs=1e-3)
    own = scores.centres("point")
    assert scores.numbers("end", [y for _, y in own]) == pytest.approx([0.4, 0.6, 0.9, 0.7], abs=1e-3)


def test_the_tested_weights_are_ringed() -> None:
    chart, (_, scores) = drawn(finetune("lite"))
    ((x, y),) = scores.centres("ring")
    assert scores.numbers("middle", [x]) == pytest.approx([20], abs=0.01)
    assert scores.numbers("end", [y]) == pytest.approx([0.9], abs=1e-3)
    assert chart.notes[0] == "lite: best weights (step 20), test accuracy 0.750, AUROC 0.900."


def test_the_study_tests_the_last_weights() -> None:
    chart, _ = drawn(finetune("lite", mode="as-published"))
    assert "last weights" in chart.notes[0]


def test_models_share_a_scale() -> None:
    low = tuple(CurvePoint(p.step, p.lr, p.train_loss / 10, p.val_loss / 10, p.val_score) for p in POINTS)
    _, (first, _, second, _) = drawn(finetune("a"), finetune("b", low))
    assert first.ticks("end") == second.ticks("end")


def test_long_curves_are_thinned_and_have_no_marks() -> None:
    points = tuple(CurvePoint(i, 1e-4, 1 / (i + 1), 2 / (i + 1), i / 1000) for i in range(1000))
    _, (losses, scores) = drawn(finetune("lite", points))
    assert not losses.centres("point")
    ((*line,),) = scores.corners("line")
    assert len(line) == 2  # a straight line


def test_a_curve_without_points_is_named() -> None:
    old = entry_of("finetune", "old", {}, {"test": {}})
    (section,) = sections(page(old), PageOptions())
    assert any("old" in block.text for block in section.blocks if isinstance(block, Paragraph))


def test_no_points_at_all() -> None:
    chart, _ = drawn(finetune("lite", ()))
    assert chart.table is not None
    assert not chart.table.rows
