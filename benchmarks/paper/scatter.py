"""Panels of points with a line, its band and the correlation: figures 7 and A1-A4."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.paper.labels import place_labels
from benchmarks.paper.names import MODELS
from benchmarks.paper.relation_words import correlation_words
from benchmarks.paper.relations import Relation
from benchmarks.paper.style import caption as write_caption
from benchmarks.paper.style import code, colour, draw_points, finish, model_handles, new_figure
from engine.report.probe_plots.style import GREY, literal

_ACROSS = 4


def draw_panels(relations: Sequence[Relation], caption: str) -> Any:
    """Return a matplotlib figure with a panel for each relation, a legend and a caption."""
    across = min(_ACROSS, len(relations))
    down = -(-len(relations) // across)
    spare = across * down > len(relations)
    figure = new_figure(3.0 * across + (0 if spare else 1.6), 2.75 * down + 1.0)
    grid = list(figure.subplots(down, across, squeeze=False).flat)
    for axes, relation in zip(grid, relations, strict=False):
        _panel(axes, relation)
    for axes in grid[len(relations) :]:
        axes.set_axis_off()
    if spare:
        handles = _handles(relations)
        grid[len(relations)].legend(handles=handles, fontsize=7.5, frameon=False, loc="upper left")
    else:
        _legend(figure, relations)
    write_caption(figure, caption)
    return figure


def draw_one(relation: Relation, caption: str) -> Any:
    """Return a matplotlib figure of one relation, a legend and a caption."""
    figure = new_figure(7.2, 5.0)
    _panel(figure.subplots(), relation, size=110)
    _legend(figure, [relation])
    write_caption(figure, caption)
    return figure


def _legend(figure: Any, relations: Sequence[Relation]) -> None:
    figure.legend(handles=_handles(relations), fontsize=7, frameon=False, loc="outside right upper")


def _handles(relations: Sequence[Relation]) -> list[Any]:
    """Return a legend's handles of all models, in the paper's order."""
    models = list(dict.fromkeys(model for relation in relations for model in relation.models))
    models.sort(key=lambda model: MODELS.index(model) if model in MODELS else len(MODELS))
    return model_handles(models, codes=True)


def _panel(axes: Any, relation: Relation, size: float = 48) -> None:
    models = relation.models
    x, y = (np.array([numbers[model] for model in models]) for numbers in (relation.x, relation.y))
    _error_bars(axes, relation, models)
    draw_points(axes, x.tolist(), y.tolist(), models, size)
    axes.margins(0.08)
    _line(axes, relation, x)
    _name_points(axes, x, y, models, size)
    finish(axes)
    axes.set_xlabel(relation.axes[0], fontsize=8)
    axes.set_ylabel(relation.axes[1], fontsize=8)
    axes.set_title(literal(relation.title), fontsize=8.5, loc="left", fontweight="bold", pad=14)
    axes.annotate(
        _words(relation),
        (0, 1),
        (0, 3),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=6.6,
        color="#333333",
        va="bottom",
    )


def _name_points(axes: Any, x: Any, y: Any, models: Sequence[str], size: float) -> None:
    font = 5.4 if size < 100 else 7.5
    wide, high = (4.5, 3.6) if size >= 100 else (2.5, 1.9)  # inches, about
    limits = np.array([axes.get_xlim(), axes.get_ylim()])
    shares = (np.stack([x, y], axis=1) - limits[:, 0]) / np.ptp(limits, axis=1)
    labels = place_labels(shares * (72 * wide, 72 * high), [code(m) for m in models], font, size**0.5 / 2)
    for across, up, model, label in zip(x, y, models, labels, strict=True):
        axes.annotate(
            literal(code(model)),
            (across, up),
            (label.x, label.y),
            textcoords="offset points",
            ha=label.across,
            va="center_baseline" if label.up == "center" else label.up,
            fontsize=font,
            color="#333333",
            zorder=5,
        )


def _error_bars(axes: Any, relation: Relation, models: Sequence[str]) -> None:
    for model in models:
        errors = {}
        for name, halves in (("xerr", relation.x_error), ("yerr", relation.y_error)):
            if model in halves:
                errors[name] = [halves[model]]
        if errors:
            axes.errorbar(
                [relation.x[model]],
                [relation.y[model]],
                fmt="none",
                ecolor=colour(model),
                elinewidth=0.7,
                alpha=0.55,
                zorder=2,
                **errors,
            )


def _line(axes: Any, relation: Relation, x: Any) -> None:
    line = relation.line.line
    if math.isnan(line.slope):
        return
    places = np.linspace(x.min(), x.max(), 60)
    axes.plot(places, line.at(places), color="#444444", linewidth=1.1, zorder=3)
    lower, upper = axes.get_ylim()
    band = line.band(places)
    axes.fill_between(
        places, line.at(places) - band, line.at(places) + band, color=GREY, alpha=0.14, linewidth=0, zorder=1
    )
    axes.set_ylim(lower, upper)  # the points decide, not a band of three points
    if relation.published is not None:
        _published_line(axes, relation)


def _published_line(axes: Any, relation: Relation) -> None:
    """Draw the line that the authors' fit gives, dashed."""
    assert relation.published is not None
    models = relation.published.models
    x, y = ([numbers[model] for model in models] for numbers in (relation.x, relation.y))
    slope, level = np.polyfit(x, y, 1)
    places = np.array([min(x), max(x)])
    axes.plot(places, slope * places + level, color="#444444", linewidth=1.0, linestyle=(0, (4, 2)), zorder=3)


def _words(relation: Relation) -> str:
    words = correlation_words(relation.correlation)
    if relation.published is not None:
        return f"{words} (dashed: {correlation_words(relation.published)})"
    if relation.weighted is not None and not math.isnan(relation.weighted.line.reduced_chi2):
        line = relation.weighted.line
        return f"{words}; χ²/ν = {line.reduced_chi2:.1f}, ν = {line.dof}"
    return words
