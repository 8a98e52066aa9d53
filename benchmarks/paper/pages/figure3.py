"""Figure 3: how the five self-supervised models do over all data sets."""

from pathlib import Path
from typing import Any

from benchmarks.paper.bars import boxes_table, draw_box, points_table
from benchmarks.paper.experiments import absent, missing, models_of, present, provenance
from benchmarks.paper.names import MODELS, SSL, dataset_label, model_label
from benchmarks.paper.scaled import FEW_SHOT, boxes, scaled
from benchmarks.paper.style import COLOURS, finish, jitter, new_figure, save
from benchmarks.paper.style import caption as write_caption
from benchmarks.paper.values import Values
from engine.report.page.blocks import DataTable
from engine.report.statistics import Box

TITLE = "the self-supervised models, scaled few-shot accuracy over all data sets"


def shown(values: Values) -> dict[str, Box]:
    """Return a box for each model.

    Raises:
        Refused: there is none to draw.
    """
    here = present(values, FEW_SHOT, "figure 3")
    result = {model: one for model, one in boxes(values, here, models_of(values, SSL)).items() if one.n}
    if not result:
        raise missing("figure 3", f"few-shot accuracies of one of {', '.join(SSL)} and of another model")
    return result


def caption(values: Values) -> str:
    """Return what is shown, n, and where the values are from."""
    counts = sorted({one.n for one in shown(values).values()})
    here = present(values, FEW_SHOT, "figure 3")
    over = len(models_of(values, MODELS))
    n = " or ".join(map(str, counts))
    return (
        "Figure 3. Few-shot accuracy of the self-supervised ImageNet models, scaled on each data set to 0 "
        f"for the lowest and 1 for the highest of {over} models. Boxes: quartiles; line: median; "
        f"whiskers: extremes; points: data sets (n = {n}). {absent(FEW_SHOT, here)} The drawing stored with "
        f"the authors' code has further tasks. {provenance(values)}"
    )


def draw(values: Values, out: Path) -> None:
    """Draw the figure. Raises Refused if values are lacking."""
    save(lambda: _figure(values), out, "figure3")


def _figure(values: Values) -> Any:
    result = shown(values)
    figure = new_figure(6.6, 4.4)
    axes = figure.subplots()
    for place, one in enumerate(result.values()):
        draw_box(axes, place, one, COLOURS["SSL"], 0.56)
    rows = _points(values)
    order = list(result)
    for index, dataset in enumerate(dict.fromkeys(name for name, _, _ in rows)):
        mine = [(order.index(model), number) for name, model, number in rows if name == dataset]
        jitter(axes, mine, index, dataset)
    axes.set_xticks(range(len(result)), [model_label(model) for model in result])
    axes.set_ylabel("scaled few-shot accuracy", fontsize=8.5)
    axes.set_ylim(-0.03, 1.05)
    finish(axes, grid="y")
    figure.legend(
        fontsize=7.5, frameon=False, loc="outside right upper", title="data set", title_fontsize=7.5
    )
    write_caption(figure, caption(values))
    return figure


def _points(values: Values) -> list[tuple[str, str, float]]:
    models = list(shown(values))
    by_experiment = scaled(values, present(values, FEW_SHOT, "figure 3"), models_of(values, MODELS))
    return [
        (dataset_label(experiment.dataset), model, one.values[model])
        for experiment, one in by_experiment.items()
        for model in models
        if model in one.values and not one.reason
    ]


def table(values: Values) -> DataTable:
    """Return the boxes. Raises Refused if values are lacking."""
    labelled = {model_label(model): one for model, one in shown(values).items()}
    return boxes_table("figure3", caption(values), labelled)


def points(values: Values) -> DataTable:
    """Return the points. Raises Refused if values are lacking."""
    return points_table("figure3-points", caption(values), _points(values), "scaled accuracy")
