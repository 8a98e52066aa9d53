"""The models of a choice in the plane: the metric, with its interval, against the encoding rate."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.report.compare_text import HEADINGS, tested_on
from engine.report.drawing import draw_figure
from engine.report.json_parts import objects
from engine.report.marks import LEGEND, MARK
from engine.report.probe_plots.style import COLOURS, GREY, GRID, literal, tidy
from engine.report.record_values import number, text
from engine.report.tables import shortened
from stores.json_types import Json, JsonObject

_NAME = 30
#: Models that are drawn with their names.
_NAMED = 30


def choice_figure(document: Mapping[str, Json], out: Path) -> Path:
    """Draw the models of a choice.

    Args:
        document: of a choice, as `--json` prints it.
        out: PNG, SVG or PDF by its ending, written atomically; missing folders are made.

    Raises:
        Refused: the folder is not writable.
    """
    return draw_figure(lambda: draw_choice(document), out, "models choose", dpi=150)


def draw_choice(document: Mapping[str, Json]) -> Any:
    """Return the matplotlib figure of `choice_figure`.

    Members of the set are filled and blue, the others hollow and grey. Models without a rate stand in a strip
    of their own on the left.
    """
    import matplotlib.pyplot as plt

    models = [
        model for model in objects(document["models"]) if number(model["value"]) == number(model["value"])
    ]
    short = shortened([text(model["model"]) for model in models], _NAME)
    rated = [model for model in models if _rate(model) == _rate(model)]
    unrated = [model for model in models if _rate(model) != _rate(model)]
    figure = plt.figure(figsize=(7.6, 4.6), layout="constrained")
    widths = [1.0, 4.0] if unrated and rated else [1.0]
    panels = list(figure.subplots(1, len(widths), sharey=True, squeeze=False, width_ratios=widths).flat)
    if unrated:
        _draw(panels[0], unrated, [0.0] * len(unrated), short)
        panels[0].set_xlim(-1, 5 if rated else 12)
        panels[0].set_xticks([])
        panels[0].set_xlabel("rate unknown", fontsize=8)
    if rated or not unrated:
        _draw(panels[-1], rated, [_rate(model) for model in rated], short)
        _across(panels[-1], rated)
    smaller = ", lower is better" if document["metric"] == "log_loss" else ""
    panels[0].set_ylabel(f"{HEADINGS[text(document['metric'])]}{smaller} (95 % interval)", fontsize=8)
    for axes in panels:
        tidy(axes, "")
        axes.grid(color=GRID, linewidth=0.6)
    undefined = len(objects(document["models"])) - len(models)
    title = f"{document['evaluation']}, {document['label']}: {tested_on(document)}"
    figure.suptitle(
        literal(title + (f"; {undefined} without a value" if undefined else "")),
        fontsize=9,
        x=0.01,
        ha="left",
    )
    _legend(figure, models)
    return figure


def _draw(axes: Any, models: Sequence[JsonObject], across: Sequence[float], short: Mapping[str, str]) -> None:
    for place, (x, model) in enumerate(zip(across, models, strict=True)):
        value, low, high = (number(model[name]) for name in ("value", "low", "high"))
        member = bool(model["in_set"])
        colour = COLOURS[0] if member else GREY
        if low == low:
            axes.plot([x, x], [low, high], color=colour, linewidth=1.4 if member else 0.9)
        axes.plot(
            x,
            value,
            "o" if member else "s",
            color=colour,
            markersize=7 if member else 5.5,
            markerfacecolor=colour if member else "white",
            zorder=3,
        )
        if place < _NAMED:
            name = literal(short[text(model["model"])]) + (MARK if model.get("below_control") else "")
            axes.annotate(
                name,
                (x, value),
                xytext=(6, 3),
                textcoords="offset points",
                fontsize=7,
                color="black" if member else GREY,
                fontweight="bold" if member else "normal",
            )


def _across(axes: Any, models: Sequence[JsonObject]) -> None:
    """Set up the axis of rates: logarithmic, with room for the name of the fastest model."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.set_xscale("log")
    rates = [_rate(model) for model in models]
    if rates:
        span = max(max(rates) / min(rates), 2.0)
        axes.set_xlim(min(rates) / span**0.1, max(rates) * span**0.45)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.4g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    machines = ", ".join(dict.fromkeys(text(model["measured_on"]) for model in models))
    axes.set_xlabel(literal(f"images encoded a second ({machines})"), fontsize=8)


def _rate(model: JsonObject) -> float:
    return number(model["img_per_s"])


def _legend(figure: Any, models: Sequence[JsonObject]) -> None:
    from matplotlib.lines import Line2D

    look: dict[str, Any] = {"linestyle": ""}
    handles = [Line2D([], [], marker="o", color=COLOURS[0], markersize=7, label="in the Pareto set", **look)]
    if not all(model["in_set"] for model in models):
        label = "left out: another costs no more, and is better or cheaper"
        handles.append(
            Line2D(
                [], [], marker="s", color=GREY, markerfacecolor="white", markersize=5.5, label=label, **look
            )
        )
    if any(model.get("below_control") for model in models):
        handles.append(Line2D([], [], linestyle="", label=LEGEND))
    figure.legend(handles=handles, fontsize=7, frameon=False, ncols=3, loc="outside lower right")
