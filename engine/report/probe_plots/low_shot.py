"""Low-shot curves of probes: several models on the same draws."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.report.console import clipped
from engine.report.json_parts import members, objects
from engine.report.probe_plots.fits import Fit
from engine.report.probe_plots.style import COLOURS, GREY, GRID, STYLES, legend_below, literal, tidy
from engine.report.record_values import at, number, numbers

#: Metric -> its name; a panel each.
_METRICS = {"accuracy": "accuracy", "auroc": "AUROC"}
_MARKERS = "osD^vPX"
_LEGEND = 34
#: Factors on the log axis: between the intervals of two models, and from the largest number of images to all.
_ASIDE, _ALL = 1.03, 1.9


def draw_low_shot(fits: Sequence[Fit]) -> Any:
    """Draw a row for each label with accuracy and AUROC, a line for each model.

    Points are means over the draws, bars Student's 95 % intervals. The draws are the same for all models of
    a bank. On the right is the probe that was trained on all images.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    labels = list(dict.fromkeys(fit.label for fit in fits))
    models = list(dict.fromkeys(fit.model for fit in fits))
    below = 0.3 + 0.17 * -(-len(models) // 2)
    figure = plt.figure(figsize=(8.4, 3.3 * len(labels) + below), layout="constrained")
    grid = figure.subplots(len(labels), 2, squeeze=False)
    for row, label in zip(grid, labels, strict=True):
        own = [fit for fit in fits if fit.label == label]
        for axes, metric in zip(row, _METRICS, strict=True):
            _draw(axes, own, models, metric)
            tidy(axes, f"{clipped(label, _LEGEND)}: {_draws(own)}" if metric == "accuracy" else "")
            axes.grid(color=GRID, linewidth=0.6)
    handles = [_handle(place, model) for place, model in enumerate(models)]
    legend_below(figure, handles, 2)
    return figure


def _look(place: int) -> dict[str, Any]:
    return {
        "color": COLOURS[place % len(COLOURS)],
        "linestyle": STYLES[place % len(STYLES)],
        "marker": _MARKERS[place % len(_MARKERS)],
    }


def _handle(place: int, model: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], markersize=4.5, label=literal(clipped(model, _LEGEND)), **_look(place))


def _draws(fits: Sequence[Fit]) -> str:
    """Return how many draws the intervals are over."""
    seeds = {number(at(fit.body, "low_shot.seeds")) for fit in fits}
    count = "/".join(f"{value:g}" for value in sorted(seeds))
    return f"95 % intervals over {count} draws" if max(seeds) > 1 else "one draw, no intervals"


def _draw(axes: Any, fits: Sequence[Fit], models: Sequence[str], metric: str) -> None:
    """Draw one metric of the models."""
    ticks = sorted({number(shots) for fit in fits for shots in numbers(at(fit.body, "low_shot.shots"))})
    at_all = ticks[-1] * _ALL
    for fit in fits:
        place = models.index(fit.model)
        aside = _ASIDE ** (place - (len(models) - 1) / 2)  # so that bars do not hide one another
        curve = objects(at(fit.body, "low_shot.curve"))
        scores = [members(point.get(metric)) for point in curve]
        axes.errorbar(
            np.array([number(point.get("shots")) for point in curve]) * aside,
            [number(score.get("mean")) for score in scores],
            yerr=[number(score.get("ci95")) for score in scores],  # NaN draws no bar
            capsize=2.5,
            markersize=4.5,
            linewidth=1.4,
            elinewidth=1.0,
            **_look(place),
        )
        axes.plot(at_all * aside, number(at(fit.body, f"test.{metric}")), markersize=6, **_look(place))
    axes.axvline(ticks[-1] * _ALL**0.5, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set_xticks([*ticks, at_all], [*(f"{count:g}" for count in ticks), "all"])
    axes.minorticks_off()
    low, high = axes.get_ylim()  # an interval of few draws may be wider than scores can be
    axes.set_ylim(max(low, -0.02), min(high, 1.02))
    axes.set_xlabel("labelled images per class", fontsize=8)
    axes.set_ylabel(f"test {_METRICS[metric]}", fontsize=8)
