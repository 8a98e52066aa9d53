"""Figure 9: attentive diffusion of groups of models on chest X-rays and on other images."""

from pathlib import Path
from typing import Any

from benchmarks.paper.bars import boxes_table, draw_box, points_table
from benchmarks.paper.experiments import missing, models_of, numbers, provenance
from benchmarks.paper.names import DIFFUSION, DOMAIN_MODELS, IN_DOMAIN, OUT_OF_DOMAIN, SSL, SUPERVISED
from benchmarks.paper.style import COLOURS, draw_points, finish, legend_of_models, new_figure, save
from benchmarks.paper.style import caption as write_caption
from benchmarks.paper.values import Values
from engine.report.page.blocks import DataTable
from engine.report.statistics import Box, box

TITLE = "attentive diffusion of groups of models in and out of domain"
GROUPS = {"SSL": SSL, "Supervised": SUPERVISED, "Domain-specific": DOMAIN_MODELS}
_DOMAINS = {"in": IN_DOMAIN, "out": OUT_OF_DOMAIN}
_NAMES = {"in": "in-domain (chest X-rays)", "out": "out-of-domain (other images)"}
_COLOURS = {**COLOURS, "Domain-specific": COLOURS["MIMIC-CheXpert"]}


def shown(values: Values) -> dict[tuple[str, str], Box]:
    """Return a box for each domain and group; its names are `model on data set`.

    Raises:
        Refused: there is none to draw.
    """
    result = {}
    for domain, datasets in _DOMAINS.items():
        for group, models in GROUPS.items():
            cells = {
                f"{model} on {dataset}": numbers(values, dataset, DIFFUSION).get(model, float("nan"))
                for model in models
                for dataset in datasets
            }
            result[domain, group] = box(cells, list(cells), DIFFUSION.replace("_", " "))
    if not any(one.n for one in result.values()):
        raise missing(
            "figure 9", "the attentive diffusion of one of the paper's models on one of its data sets"
        )
    return result


def caption(values: Values) -> str:
    """Return what is shown, n, and where the values are from."""
    boxes = shown(values)
    n = "; ".join(
        f"{_NAMES[domain]}: "
        + ", ".join(f"{one.n} {group}" for (where, group), one in boxes.items() if where == domain)
        for domain in _DOMAINS
    )
    left = sum(len(one.left_out) for one in boxes.values())
    missing_cells = f" {left} cells have no value." if left else ""
    return (
        "Figure 9. Attentive diffusion, one value for each model and data set. Boxes: quartiles; line: "
        f"median; whiskers: extremes. n: {n}.{missing_cells} {provenance(values)}"
    )


def draw(values: Values, out: Path) -> None:
    """Draw the figure. Raises Refused if values are lacking."""
    save(lambda: _figure(values), out, "figure9")


def _figure(values: Values) -> Any:
    boxes = shown(values)
    figure = new_figure(7.2, 4.6)
    axes = figure.subplots()
    places = {}
    for (domain, group), one in boxes.items():
        across = 3.6 * list(_DOMAINS).index(domain) + list(GROUPS).index(group)
        places[across] = group
        draw_box(axes, across, one, _COLOURS[group], 0.7)
        _draw_cells(axes, across, values, domain, group)
    axes.set_xticks(list(places), [group.replace("-", "-\n") for group in places.values()])
    for place, domain in enumerate(_DOMAINS):
        axes.annotate(
            _NAMES[domain],
            (3.6 * place + 1, 1.0),
            (0, 4),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            fontweight="bold",
        )
    axes.set_ylabel("attentive diffusion", fontsize=8.5)
    finish(axes, grid="y")
    axes.tick_params(axis="x", labelsize=8, length=0)
    legend_of_models(figure, models_of(values, [m for models in GROUPS.values() for m in models]))
    write_caption(figure, caption(values))
    return figure


def _draw_cells(axes: Any, across: float, values: Values, domain: str, group: str) -> None:
    """Draw each model's values in a column of its own within the box."""
    models = models_of(values, GROUPS[group])
    for index, model in enumerate(models):
        spot = across + (index - (len(models) - 1) / 2) * 0.11
        ups = [numbers(values, dataset, DIFFUSION).get(model) for dataset in _DOMAINS[domain]]
        drawn = [up for up in ups if up is not None]
        draw_points(axes, [spot] * len(drawn), drawn, [model] * len(drawn), 22)


def table(values: Values) -> DataTable:
    """Return the boxes. Raises Refused if values are lacking."""
    boxes = {f"{group}, {_NAMES[domain]}": one for (domain, group), one in shown(values).items()}
    return boxes_table("figure9", caption(values), boxes)


def points(values: Values) -> DataTable:
    """Return the points. Raises Refused if values are lacking."""
    rows = [
        (f"{_NAMES[domain]}, {dataset}", model, number)
        for domain, datasets in _DOMAINS.items()
        for dataset in datasets
        for model, number in numbers(values, dataset, DIFFUSION).items()
        if any(model in models for models in GROUPS.values())
    ]
    return points_table("figure9-points", caption(values), rows, "attentive diffusion")
