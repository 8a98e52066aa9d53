"""The quantitative figures: what is drawn, what captions say, and what is refused."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats

from benchmarks.paper import scaled
from benchmarks.paper.__main__ import main
from benchmarks.paper.experiments import Experiment, absent, listed, metric_of, transfers
from benchmarks.paper.labels import place_labels
from benchmarks.paper.names import MODELS, SSL, SUPERVISED
from benchmarks.paper.pages import (
    figure2,
    figure4,
    figure5,
    figure7,
    figure9,
    figurea1,
    figurea2,
    figurea4,
    page,
    titles,
)
from benchmarks.paper.relation_words import p_text
from benchmarks.paper.relations import OMITTED, WEIGHTS_TOP1
from benchmarks.paper.scatter import draw_one, draw_panels
from benchmarks.paper.values import Value, Values, published_results
from engine.errors import Refused
from stores.outputs import written_by

FIGURES = [name for name in titles() if name.startswith("figure") and page(name).table is not None]


def part() -> Values:
    """Return the published values of three data sets, which every figure can be drawn from."""
    return published_results().where(dataset=("chexpert", "bach", "imagenet"))


def own() -> Values:
    """Return values of models and a data set that the paper has not."""
    random = np.random.default_rng(1)
    metrics = ("few_shot_3way_5shot_accuracy_pct", "attentive_diffusion", "rotation_invariance_cosine")
    return Values(
        Value(model, "mine", metric, float(random.uniform(0.2, 0.9)), source=f"record {model} {metric}")
        for model in ("net/a", "net/b$", "c", "densenet121_with_more")
        for metric in metrics
    )


def axes_of(figure: Any) -> Any:
    import matplotlib.pyplot as plt

    plt.close(figure)
    return figure.axes[0]


def test_the_figures_are_there() -> None:
    assert FIGURES == [
        "figure2", "figure3", "figure4", "figure5", "figure7", "figure9",
        "figurea1", "figurea2", "figurea3", "figurea4",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("figure2", "figure3", "figure9", "figurea3")
        else pytest.param(name, marks=pytest.mark.thorough)
        for name in FIGURES
    ],
)
def test_a_figure_is_drawn(tmp_path: Path, name: str) -> None:
    out = tmp_path / "new" / f"{name}.svg"
    draw = page(name).draw
    assert draw is not None
    draw(part(), out)
    assert ElementTree.parse(out).getroot().tag.endswith("svg")
    assert written_by(out, f"paper {name}")


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["figure4", "figurea1"])
@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_a_figure_of_all_values_is_the_same_twice(tmp_path: Path, name: str, ending: str) -> None:
    draw = page(name).draw
    assert draw is not None
    for copy in ("a", "b"):
        draw(published_results(), tmp_path / f"{copy}.{ending}")
    assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


@pytest.mark.parametrize("name", FIGURES)
def test_captions_state_n_and_the_source(name: str) -> None:
    chosen = page(name)
    assert chosen.table is not None and chosen.points is not None
    table, points = chosen.table(published_results()), chosen.points(published_results())
    number = name.removeprefix("figure").upper()
    assert table.caption.startswith(f"Figure {number}. ")
    assert "n = " in table.caption or "n: " in table.caption
    assert table.caption.endswith("results of all checkpoints that the authors stored with their code.")
    assert "nan" not in table.caption
    assert table.rows and all(len(row) == len(table.columns) for row in table.rows)
    assert points.rows and all(len(row) == len(points.columns) for row in points.rows)
    assert "Our own values, from" in page("figurea2").table(own()).caption  # type: ignore[misc]


def test_points_of_figure_7_are_the_values() -> None:
    panel = figure7.FIGURE.shown(published_results())[0]
    axes = axes_of(draw_one(panel, "caption"))
    dots = [one for one in axes.collections if type(one).__name__ == "PathCollection"]
    drawn = sorted(tuple(map(float, one.get_offsets()[0])) for one in dots)
    results = published_results()
    metrics = ("few_shot_2way_20shot_accuracy_pct", "attentive_diffusion")
    cells = [[results.get(model, "chexpert", metric) for metric in metrics] for model in MODELS]
    expected = sorted(tuple(cell.value for cell in pair if cell is not None) for pair in cells)
    assert drawn == expected and len(drawn) == 13
    assert {text.get_text() for text in axes.texts} >= {"BYOL", "r = −0.72, p = 0.0055, n = 13"}
    line = axes.lines[0].get_xydata()
    slope, intercept = np.polyfit(*np.array(expected).T, 1)
    assert line[:, 1] == pytest.approx(intercept + slope * line[:, 0])


def test_the_published_fit_of_the_headline_is_drawn_dashed() -> None:
    panels = figurea1.FIGURE.shown(published_results())
    (panel,) = [one for one in panels if one.key == "multiview:chexpert"]
    assert set(OMITTED) == {panel.key} and len(panels) == 17
    axes = axes_of(draw_one(panel, ""))
    solid, dashed = axes.lines[:2]
    nine = [model for model in panel.models if model != "mimic-chexpert-lr0.01"]
    slope, _ = np.polyfit([panel.x[model] for model in nine], [panel.y[model] for model in nine], 1)
    (x0, y0), (x1, y1) = dashed.get_xydata()
    assert (y1 - y0) / (x1 - x0) == pytest.approx(slope)
    assert dashed.get_linestyle() == "--" and solid.get_linestyle() == "-"
    assert "dashed: r = 0.82, p = 0.0068, n = 9" in axes.texts[-1].get_text()
    assert "without MIMIC-CheXpert (lr 0.01); the paper does not say so" in figurea1.FIGURE.caption(
        published_results()
    )


def test_bars_are_as_high_as_the_means() -> None:
    tasks = figure5.FIGURE.shown(published_results())
    axes = axes_of(figure5.FIGURE._figure(published_results()))
    heights = [patch.get_height() for patch in axes.patches]
    assert heights == pytest.approx([mean.mean for task in tasks for mean in task.means.values()])
    assert len(tasks) == 11  # none of the checkpoints was finetuned on EyePACS
    assert "No values: finetuned on EyePACS." in figure5.FIGURE.caption(published_results())
    assert len(figure2.FIGURE.shown(published_results())) == 12


def test_tables_say_who_entered() -> None:
    table = figure4.table(published_results())
    names = [column.title for column in table.columns]
    rows = [dict(zip(names, (value.text for value in row), strict=True)) for row in table.rows]
    assert rows[2] == {
        "shown": "In-domain (chest X-rays)",
        "group": "MIMIC-CheXpert",
        "mean": "0.749",
        "sd": "0.070",
        "n": "3",
        "models": "mimic-chexpert-lr0.01, mimic-chexpert-lr0.1, mimic-chexpert-lr1.0",
        "left out": "–",
    }
    some = Values(
        one
        for one in published_results()
        if (one.model, one.dataset, one.metric) != ("byol", "bach", "few_shot_2way_20shot_accuracy_pct")
    )
    domain = scaled.domains(some, scaled.DOMAINS, figure4.GROUPS)["out"]
    assert domain.groups["SSL"].n == 4 and [one.name for one in domain.groups["SSL"].left_out] == ["byol"]
    assert math.isnan(domain.models["byol"].mean)
    assert domain.models["byol"].reason == "no value in few_shot:bach"
    assert figure9.shown(some.where(model="byol"))["in", "SSL"].n == 4


def test_correlations_state_their_influence() -> None:
    table = figurea1.table(published_results())
    names = [column.title for column in table.columns]
    (row,) = [row for row in table.rows if row[0].text == "CheXpert, few-shot: multi-view"]
    cells = dict(zip(names, row, strict=True))
    assert cells["n"].text == "10" and cells["r"].text == "0.24" and cells["p"].text == "0.50"
    assert cells["r"].low is not None and cells["r"].low < 0 < (cells["r"].high or 0)
    assert (cells["lowest r"].text, cells["highest r"].text) == ("0.02", "0.82")
    assert cells["most influential"].text == "MIMIC-CheXpert (lr 0.01)"
    assert cells["r without it"].text == "0.82" and cells["p without it"].text == "0.0068"
    assert cells["left out"].text == (
        "MIMIC-CheXpert (lr 0.1), MIMIC-CheXpert (lr 1.0), MoCo-CXR (r18) (no cosine)"
    )
    p, adjusted = ([row[names.index(name)].number or 0 for row in table.rows] for name in ("p", "p (Holm)"))
    assert min(adjusted) == pytest.approx(min(1, 17 * min(p)))
    assert "without MIMIC-CheXpert (lr 0.01)" in table.notes[0]


def test_models_and_data_sets_of_a_study_are_drawn() -> None:
    panels = figurea2.FIGURE.shown(own())
    assert [panel.key for panel in panels] == ["few_shot:mine"] and panels[0].correlation.n == 4
    axes = axes_of(draw_panels(panels, "a $ in a caption"))
    assert {"a", r"b\$", "c", "densenet121…"} <= {text.get_text() for text in axes.texts}
    assert metric_of(own(), Experiment("few_shot", "mine")) == "few_shot_3way_5shot_accuracy_pct"
    assert transfers(own()) == (Experiment("few_shot", "mine"),)


def test_values_that_are_lacking_are_named() -> None:
    for name in ("figure2", "figure3", "figure4", "figure5", "figure7", "figure9", "figurea3", "figurea4"):
        table = page(name).table
        assert table is not None
        with pytest.raises(Refused, match="It needs") as error:
            table(own())
        assert "--from" in error.value.remedy
    with pytest.raises(Refused):
        figurea2.table(own().where(model=("c", "net/a")))


def test_accuracies_on_imagenet_are_the_authors_where_a_study_has_none() -> None:
    without = Values(one for one in part() if one.metric != "imagenet_top1_pct")
    ours, theirs = figurea4.FIGURE.shown(without), figurea4.FIGURE.shown(part())
    assert [one.correlation.r for one in ours] == [one.correlation.r for one in theirs]


def test_accuracies_of_the_weights_are_torchvisions() -> None:
    from torchvision.models import DenseNet121_Weights, ResNet18_Weights, ResNet50_Weights

    weights = {"r50": ResNet50_Weights, "r18": ResNet18_Weights, "d121": DenseNet121_Weights}
    top1 = {
        f"supervised-{name}": one.IMAGENET1K_V1.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        for name, one in weights.items()
    }
    assert top1 == WEIGHTS_TOP1
    results, experiment = published_results(), Experiment("few_shot", "chexpert")
    models = [*SSL, *SUPERVISED]
    listed_top1 = {model: results.get(model, "imagenet", "imagenet_top1_pct") for model in models}
    x = [top1.get(model, one.value if one else math.nan) for model, one in listed_top1.items()]
    y = [
        one.value
        for model in models
        if (one := results.get(model, "chexpert", metric_of(results, experiment)))
    ]
    corrected = figurea4.corrected(results)["CheXpert, few-shot"]
    assert (corrected.r, corrected.p) == pytest.approx(tuple(stats.pearsonr(x, y)))
    assert f"r = {corrected.r:.2f}".replace("-", "−") in figurea4.table(results).notes[-1]


def test_experiments_in_words() -> None:
    experiments = [
        Experiment("few_shot", "bach"),
        Experiment("few_shot", "chestx"),
        Experiment("linear", "x"),
    ]
    assert listed(experiments) == "few-shot on BACH and ChestX, linear on x"
    assert absent(experiments, experiments[:2]) == "No values: linear on x."
    assert absent(experiments, experiments) == ""
    assert [p_text(p) for p in (0.5, 0.0055391, 7.76e-5, 0.0995, math.nan)] == [
        "0.50", "0.0055", "7.8e-05", "0.10", "",
    ]  # fmt: skip


def test_labels_keep_clear_of_points_and_of_each_other() -> None:
    places = np.array([[0.0, 0.0], [12.0, 0.0], [6.0, 9.0], [200.0, 200.0]])
    labels = place_labels(places, ["long label", "second", "third", "alone"], 6.0, 3.0)
    assert (labels[3].across, labels[3].up) == ("left", "bottom")  # at the upper right, where all is free
    assert len({(label.across, label.up) for label in labels[:3]}) > 1


def test_the_command_draws_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["figure4"]) == 0
    assert "0.749" in capsys.readouterr().out
    out = tmp_path / "figure7.csv"
    assert main(["figure7", "-o", str(out)]) == 0
    head, row = out.read_text().splitlines()[:2]
    assert head.startswith("panel,n,r,") and "-0.7197492682409529" in row
    assert len((tmp_path / "figure7-points.csv").read_text().splitlines()) == 14
    assert main(["figure7", "-o", str(out)]) == 2
    assert main(["figure7", "-o", str(tmp_path / "figure7.gif")]) == 2
    assert main(["figure1"]) == 2
    assert main([]) == 0
    assert "few-shot accuracy on CheXpert against attentive diffusion" in capsys.readouterr().out


def test_captions_say_where_our_own_values_are_not_measured_as_the_papers() -> None:
    shots = figurea2.FIGURE.caption(own())
    assert "Not the paper's metric: 3-way 5-shot accuracy, of few-shot on mine." in shots
    settings = Values(replace(one, reason="episodes 50 (the paper's: 600)") for one in own())
    assert "Settings of some values: episodes 50 (the paper's: 600)." in figurea2.FIGURE.caption(settings)
    usual = Values(
        replace(one, metric=one.metric.replace("3way_5shot", "2way_20shot"), dataset="bach") for one in own()
    )
    assert "Not the paper's metric" not in figurea2.FIGURE.caption(usual)
