"""Figure 4: groups of models on chest X-rays and on other images."""

from pathlib import Path
from typing import Any

from benchmarks.paper.bars import draw_bars, means_table, points_table
from benchmarks.paper.experiments import absent, listed, models_of, provenance
from benchmarks.paper.names import MIMIC_CHEXPERT, MODELS, SSL, SUPERVISED
from benchmarks.paper.scaled import DOMAINS, Domain, domains, refuse_without
from benchmarks.paper.style import caption as write_caption
from benchmarks.paper.style import finish, legend_of_groups, new_figure, save
from benchmarks.paper.values import Values
from engine.report.page.blocks import DataTable

TITLE = "groups of models in and out of the domain of chest X-rays"
GROUPS = {"SSL": SSL, "Supervised": SUPERVISED, "MIMIC-CheXpert": MIMIC_CHEXPERT}
_NAMES = {"in": "In-domain (chest X-rays)", "out": "Out-of-domain (other images)"}


def shown(values: Values) -> dict[str, Domain]:
    """Return the domains.

    Raises:
        Refused: no group has a mean.
    """
    result = {
        name: domain
        for name, domain in domains(values, DOMAINS, GROUPS).items()
        if any(mean.n for mean in domain.groups.values())
    }
    refuse_without(result, "figure 4", "accuracies of the paper's models on all data sets of a domain")
    return result


def caption(values: Values) -> str:
    """Return what is shown, n, and where the values are from."""
    result = shown(values)
    parts = [
        f"{_NAMES[name]}: {listed(domain.experiments)}; "
        f"{', '.join(f'n = {mean.n} {group}' for group, mean in domain.groups.items())}."
        for name, domain in result.items()
    ]
    left = " ".join(absent(DOMAINS[name], domain.experiments) for name, domain in result.items())
    return (
        "Figure 4. Accuracy, scaled on each task to 0 for the lowest and 1 for the highest of "
        f"{len(models_of(values, MODELS))} models. Markers: each model's mean over tasks, of those with all "
        "tasks. Bars: mean over the group's models, with one standard deviation (divisor n−1). "
        f"{' '.join(parts)} {left} {provenance(values)}"
    )


def draw(values: Values, out: Path) -> None:
    """Draw the figure. Raises Refused if values are lacking."""
    save(lambda: _figure(values), out, "figure4")


def _figure(values: Values) -> Any:
    result = shown(values)
    figure = new_figure(6.8, 4.6)
    axes = figure.subplots()
    means = [{model: mean.mean for model, mean in domain.models.items()} for domain in result.values()]
    draw_bars(axes, [domain.groups for domain in result.values()], means)
    axes.set_xticks(range(len(result)), [_NAMES[name] for name in result])
    axes.set_ylabel("mean scaled accuracy", fontsize=8.5)
    axes.set_ylim(0, 1.05)
    finish(axes, grid="y")
    axes.tick_params(axis="x", labelsize=8.5, length=0)
    legend_of_groups(figure, GROUPS, models_of(values, [m for models in GROUPS.values() for m in models]))
    write_caption(figure, caption(values))
    return figure


def table(values: Values) -> DataTable:
    """Return the means of groups. Raises Refused if values are lacking."""
    rows = [
        (_NAMES[name], group, mean)
        for name, domain in shown(values).items()
        for group, mean in domain.groups.items()
    ]
    return means_table("figure4", caption(values), rows)


def points(values: Values) -> DataTable:
    """Return each model's mean over the tasks of a domain. Raises Refused if values are lacking."""
    rows = [
        (_NAMES[name], model, mean.mean)
        for name, domain in shown(values).items()
        for model, mean in domain.models.items()
    ]
    return points_table("figure4-points", caption(values), rows, "mean scaled accuracy")
