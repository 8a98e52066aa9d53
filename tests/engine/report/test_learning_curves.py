"""The figure of learning curves, by the texts and lines that matplotlib holds, and the table beside it."""

from collections.abc import Iterator
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.errors import Refused
from engine.report.learning_curves import draw_learning_curves, learning_curves_figure
from stores.bank.records import RunRecord, read_all
from tests.command import embank
from tests.probe_banks import make_probe_bank

#: step, lr, train_loss, val_loss, val_score, as JSON has them.
POINTS = [(0, 0.01, None, 1.5, 0.25), (2, 0.005, 1.25, 1.0, 0.75), (4, 0.0, 0.1 + 0.2, None, 0.5)]
COLUMNS = ("step", "lr", "train_loss", "val_loss", "val_score")


def record(model: str = "net", mode: str = "default", **more: Any) -> RunRecord:
    """A record as a finetuning writes it, less what its figure does not show."""
    metrics = {
        "curve": {"points": [dict(zip(COLUMNS, point, strict=True)) for point in POINTS]},
        "best_step": 2,
        "tested_step": 2 if mode == "default" else 4,
        "steps": 4,
        "select": "mean-per-class",
        "test": {"accuracy": 0.5, "auroc": nan},
    }
    asked = {"model": model, "mode": mode, "label": "diagnosis"}
    return RunRecord.now("finetune", asked=asked, used={}, metrics={**metrics, **more}, seconds={})


@pytest.fixture
def draw() -> Iterator[Any]:
    import matplotlib.pyplot as plt

    yield lambda *records: draw_learning_curves(records).axes
    plt.close("all")


def _points(line: Any) -> list[list[float]]:
    return [[float(value) for value in point] for point in line.get_xydata()]


def test_losses_scores_and_rates_are_those_of_the_record(draw: Any) -> None:
    losses, scores, rates = draw(record("cost$/net"))
    train, val = losses.get_lines()
    np.testing.assert_array_equal(_points(train), [[0, nan], [2, 1.25], [4, 0.1 + 0.2]])
    np.testing.assert_array_equal(_points(val), [[0, 1.5], [2, 1.0], [4, nan]])
    curve, ring = scores.get_lines()
    np.testing.assert_array_equal(_points(curve), [[0, 0.25], [2, 0.75], [4, 0.5]])
    assert _points(ring) == [[2, 0.75]]
    assert ring.get_label() == "best weights, step 2: test accuracy 0.500"
    np.testing.assert_array_equal(_points(rates.get_lines()[0]), [[0, 0.01], [2, 0.005], [4, 0.0]])
    assert scores.get_ylabel() == "validation balanced accuracy"
    assert losses.figure.get_suptitle() == r"Finetuning of cost\$/net for diagnosis"
    # On paper without colours, the two losses still differ.
    assert (train.get_linestyle(), train.get_marker()) != (val.get_linestyle(), val.get_marker())


def test_as_published_tests_the_last_weights(draw: Any) -> None:
    _, scores, _ = draw(record(mode="as-published"))
    ring = scores.get_lines()[1]
    assert (_points(ring), ring.get_label()) == (
        [[4, 0.5]], "last weights, step 4: test accuracy 0.500"
    )  # fmt: skip
    assert scores.figure.get_suptitle().endswith("as published")


def test_several_models_have_a_colour_each(draw: Any) -> None:
    losses, scores, _ = draw(record("one"), record("two"))
    colours = [line.get_color() for line in losses.get_lines()]
    assert colours[0] == colours[1] != colours[2] == colours[3]
    texts = [text.get_text() for text in losses.get_legend().get_texts()]
    assert texts[::2] == ["one, training (augmented)", "two, training (augmented)"]
    assert [line.get_color() for line in scores.get_lines()] == colours


@pytest.mark.parametrize("missing", ["curve", "select", "tested_step"])
def test_a_record_without_a_part_is_refused(missing: str) -> None:
    with pytest.raises(Refused, match=f"has no metrics.{missing}"):
        draw_learning_curves([record(**{missing: None})])


@pytest.mark.parametrize("points", [[], [{"step": 1}], "none"])
def test_a_record_without_a_curve_is_refused(points: Any) -> None:
    with pytest.raises(Refused, match="has no learning curve"):
        draw_learning_curves([record(curve={"points": points})])


@pytest.mark.slow
def test_records_show_draws_it_again_with_the_table_beside_it(tmp_path: Path) -> None:
    bank = make_probe_bank(tmp_path).path
    record().write(bank)
    again, out = tmp_path / "again.png", tmp_path / "new" / "curve.png"
    learning_curves_figure([read_all(bank)[-1]], again)
    entry = embank("records", "ls", bank, "--kind", "finetune", "--json").json["records"][0]
    assert entry["text"] == "diagnosis: test accuracy 0.500 after 4 steps"
    ran = embank("records", "show", bank, entry["record"], "-o", out, "--json")
    assert (ran.code, ran.json["figure"], ran.json["table"]) == (0, str(out), str(out.with_suffix(".csv")))
    assert out.read_bytes() == again.read_bytes()
    assert Image.open(out).size[0] >= 800
    assert out.with_suffix(".csv").read_text() == (
        "step,lr,train_loss,val_loss,val_score\n"
        "0,0.01,nan,1.5,0.25\n2,0.005,1.25,1.0,0.75\n4,0.0,0.30000000000000004,nan,0.5\n"
    )
    # Its own picture and table are replaced; a table of something else is not, unless that is meant.
    words = ("records", "show", bank, entry["record"], "-o", out)
    assert embank(*words).code == 0
    out.with_suffix(".csv").write_text("name,age\n")
    before = out.read_bytes()
    refused = embank(*words)
    assert (refused.code, out.with_suffix(".csv").read_text(), out.read_bytes()) == (2, "name,age\n", before)
    assert "--force" in refused.err
    assert embank(*words, "--force").code == 0
    assert out.with_suffix(".csv").read_text().startswith("step,lr")
