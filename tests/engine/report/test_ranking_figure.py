"""The ranking of a comparison: what it shows is what the document says."""

from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from engine.report.marks import MARK
from engine.report.ranking_figure import draw_ranking, ranking_figure, rows_of, sets_of

NAMES = ["best", "good", "$fair$", "poor", "lost"]
LETTERS = ["ab", "a", "b", "c", ""]
#: Pairs that have a letter in common.
ALIKE = {("best", "good"), ("best", "$fair$")}


def document(metric: str = "auroc") -> dict[str, Any]:
    values = [0.9, 0.8, 0.7, 0.5, None]
    ranks = [{"low": 1, "high": 3}, {"low": 1, "high": 3}, {"low": 2, "high": 3}, {"low": 4, "high": 4}, None]
    models = [
        {"model": name, "value": value, "low": value and value - 0.1, "high": value and value + 0.05,
         "rank": rank, "letters": letters, "below_control": "chance" if name == "poor" else ""}
        for name, value, rank, letters in zip(NAMES, values, ranks, LETTERS, strict=True)
    ]  # fmt: skip
    return {
        "evaluation": "probe", "metric": metric, "task": "label", "images": 48, "units": 20,
        "unit": "patients", "alpha": 0.05, "tests": 6, "models": models,
    }  # fmt: skip


def points(axes: Any, marker: str) -> list[tuple[float, float]]:
    return [
        (float(x), float(y))
        for line in axes.get_lines()
        if line.get_marker() == marker
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    ]


def test_values_ranks_and_sets_are_those_of_the_document() -> None:
    shown = document()
    figure = draw_ranking(shown)
    values, ranks, sets = figure.axes
    assert [x for x, _ in points(values, "s")] == [0.9, 0.8, 0.7, 0.5]
    assert [text.get_text() for text in values.texts if "undefined" in text.get_text()] == ["undefined"]
    assert points(ranks, "|") == [(1, 0), (3, 0), (1, 1), (3, 1), (2, 2), (3, 2), (4, 3), (4, 3)]
    labels = [text.get_text() for text in values.get_yticklabels()]
    assert labels == ["best", "good", r"\$fair\$", f"poor{MARK}", "lost"]
    members = [{int(y) for y in line.get_ydata()} for line in sets.get_lines() if line.get_marker() == "o"]
    together = {
        (NAMES[i], NAMES[j]) for i, j in combinations(range(5), 2) if any({i, j} <= own for own in members)
    }
    assert together == ALIKE and {3} in members
    plt.close(figure)


@pytest.mark.parametrize("metric", ["auroc", "log_loss"])
def test_mean_ranks_are_those_of_pandas(metric: str) -> None:
    table = pd.DataFrame(
        np.random.default_rng(0).integers(0, 4, (4, 5)) / 4, columns=NAMES, index=[*"pqrs"]
    )  # with ties
    findings = [
        {"name": name, "models": [{"model": m, "value": v} for m, v in row.sample(frac=1).items()]}
        for name, row in table.iterrows()
    ]
    findings.append({"name": "undefined", "models": [{"model": name, "value": None} for name in NAMES]})
    rows = rows_of({**document(metric), "findings": findings})
    expected = table.rank(axis=1, ascending=metric == "log_loss").mean()
    assert [row.mean_rank for row in rows] == pytest.approx(expected[NAMES].tolist())


def test_many_models_and_letters_after_z(tmp_path: Path) -> None:
    shown = document()
    model = shown["models"][0]
    many = [{**model, "model": f"m{n}", "letters": f"z{'abcdefghijklmnop'[n % 16]}a{n}"} for n in range(42)]
    rows = rows_of({**shown, "models": many})
    assert len(rows) == 40 and rows[7].letters == ("z", "h", "a7")
    assert sets_of(rows)[0] == list(range(40))
    out = ranking_figure({**shown, "models": many}, tmp_path / "new" / "many.png")
    with Image.open(out) as picture:
        assert picture.text["Software"] == "embank compare" and picture.width > 1200
