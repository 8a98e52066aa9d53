"""Reliability diagrams of probes before and after temperature scaling."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.report.probe_plots.fits import Fit
from engine.report.probe_plots.style import COLOURS, GREY, legend_below, panels, square
from engine.report.record_values import at, number, numbers

#: Area of the point of a bin with all images, in square points.
_LARGEST = 260.0


def draw_reliability(fits: Sequence[Fit]) -> Any:
    """Draw a panel for each fit; the area of a point is the share of the images in its bin."""
    from matplotlib.lines import Line2D

    figure, places = panels(len(fits), 3.4, 3.6)
    for axes, fit in zip(places, fits, strict=True):
        _draw(axes, fit)
    handles = [
        Line2D([], [], color=GREY, linestyle="--", marker="o", markerfacecolor="white", label="as fitted"),
        Line2D([], [], color=COLOURS[0], marker="s", label="after temperature scaling"),
        Line2D([], [], color="black", linewidth=0.8, label="perfect"),
    ]
    legend_below(figure, handles)
    return figure


def _draw(axes: Any, fit: Fit) -> None:
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, zorder=0)
    looks = {"before": (GREY, "--", "o", "white"), "after": (COLOURS[0], "-", "s", COLOURS[0])}
    for name, (colour, style, marker, face) in looks.items():
        count = numbers(at(fit.body, f"calibration.bins.{name}.count"))
        x = numbers(at(fit.body, f"calibration.bins.{name}.probability"))
        y = numbers(at(fit.body, f"calibration.bins.{name}.frequency"))
        filled = np.flatnonzero(count > 0)
        area = 12 + _LARGEST * count[filled] / max(1.0, float(count.sum()))
        axes.plot(x[filled], y[filled], color=colour, linestyle=style, linewidth=1.2, zorder=2)
        axes.scatter(
            x[filled],
            y[filled],
            s=area,
            marker=marker,
            facecolor=face,
            edgecolor=colour,
            linewidth=1.1,
            zorder=3,
        )
    classes = at(fit.body, "classes")
    two = isinstance(classes, list) and len(classes) == 2
    across = f"probability of {classes[1]}" if isinstance(classes, list) and two else "confidence"
    square(axes, across, "observed frequency" if two else "accuracy", fit.title)
    error = "class_ece" if two else "ece"  # of the probabilities that are drawn
    before, after = (number(at(fit.body, f"calibration.{error}.{side}")) for side in ("before", "after"))
    temperature = number(at(fit.body, "calibration.temperature"))
    text = f"ECE {before:.3f}"
    text += f" → {after:.3f}\nT = {temperature:.3g}" if temperature == temperature else "\nno temperature"
    axes.text(0.03, 0.97, text, transform=axes.transAxes, fontsize=7, va="top")
