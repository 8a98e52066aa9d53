"""Accuracy and AUROC of probes in strata of the test images."""

from collections.abc import Mapping, Sequence
from typing import Any

from engine.report.console import clipped
from engine.report.json_parts import members, objects
from engine.report.probe_plots.fits import Fit
from engine.report.probe_plots.style import COLOURS, GREY, GRID, legend_below, literal, tidy
from engine.report.record_values import at, number, text
from stores.json_types import Json

#: Metric -> colour, marker, face and offset of its row.
_LOOKS = {"auroc": (COLOURS[0], "s", COLOURS[0], 0.14), "accuracy": (COLOURS[1], "o", "white", -0.14)}
_NAME = 30


def draw_strata(fits: Sequence[Fit]) -> Any:
    """Draw a panel for each fit and column: points with 95 % intervals, and the largest gaps below."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    shown = [(fit, strata) for fit in fits for strata in objects(fit.body["strata"])]
    heights = [1.3 + 0.36 * len(objects(strata["strata"])) for _, strata in shown]
    figure = plt.figure(figsize=(7.0, sum(heights) + 0.4), layout="constrained")
    places = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (fit, strata) in zip(places, shown, strict=True):
        _draw(axes, fit, strata)
    handles = [
        Line2D([], [], color=colour, marker=marker, markerfacecolor=face, label=name)
        for name, (colour, marker, face, _) in zip(("AUROC", "accuracy"), _LOOKS.values(), strict=True)
    ]
    legend_below(figure, handles)
    return figure


def _draw(axes: Any, fit: Fit, strata: Mapping[str, Json]) -> None:
    rows = objects(strata["strata"])
    for y, stratum in enumerate(rows):
        if reason := text(stratum.get("reason")):
            axes.text(0.5, y, reason, fontsize=7, color=GREY, ha="center", va="center")
        for name, look in _LOOKS.items():
            _point(axes, stratum, name, y, look)
    names = [f"{literal(clipped(str(row['stratum']), _NAME))} ({number(row['images']):,.0f})" for row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1.01)
    tidy(axes, f"{fit.model}, {fit.label} by {strata['column']} (images)")
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.tick_params(axis="y", length=0)
    gaps = [
        _gap(members(at(strata, f"gaps.{name}")), word)
        for name, word in (("auroc", "AUROC"), ("accuracy",) * 2)
    ]
    axes.set_xlabel("largest gaps: " + "; ".join(gaps), fontsize=7)


def _point(
    axes: Any, stratum: Mapping[str, Json], name: str, y: int, look: tuple[str, str, str, float]
) -> None:
    colour, marker, face, offset = look
    value = number(stratum.get(name))
    if value != value:
        return
    low, high = (number(at(stratum, f"intervals.{name}.{end}")) for end in ("low", "high"))
    if low == low:
        axes.plot([low, high], [y - offset] * 2, color=colour, linewidth=1.6, solid_capstyle="butt")
    axes.plot(value, y - offset, marker=marker, color=colour, markerfacecolor=face, markersize=6)


def _gap(gap: Mapping[str, Json], word: str) -> str:
    value, low, high = (number(gap.get(name)) for name in ("value", "low", "high"))
    if value != value:
        return f"{word} undefined"
    return f"{word} {value:.3f}" + (f" ({low:.3f} to {high:.3f})" if low == low else "")
