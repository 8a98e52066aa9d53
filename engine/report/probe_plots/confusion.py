"""Confusion matrices of probes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.report.console import clipped
from engine.report.probe_plots.fits import Fit
from engine.report.probe_plots.style import literal, panels
from engine.report.record_values import at, numbers

#: Classes up to which counts are written, and names.
_WRITTEN, _NAMED = 12, 30
_NAME = 18


def draw_confusion(fits: Sequence[Fit]) -> Any:
    """Draw a panel for each fit: rows are true classes, shade and percentages are shares of a row."""
    classes = max(len(_names(fit)) for fit in fits)
    side = 2.2 + 0.42 * min(classes, 8) + 0.12 * max(0, min(classes, 40) - 8)
    figure, places = panels(len(fits), side, side - 0.2, below=0.0)
    for axes, fit in zip(places, fits, strict=True):
        _draw(axes, fit)
    return figure


def _names(fit: Fit) -> list[str]:
    classes = at(fit.body, "classes")
    return [literal(clipped(str(name), _NAME)) for name in classes] if isinstance(classes, list) else []


def _draw(axes: Any, fit: Fit) -> None:
    rows = at(fit.body, "test.confusion_matrix")
    counts = np.stack([numbers(row) for row in rows]) if isinstance(rows, list) else np.zeros((0, 0))
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names, every = _names(fit), range(len(counts))
    if len(counts) <= _WRITTEN:
        for i in every:
            for j in every:
                colour = "white" if shares[i, j] > 0.5 else "black"
                text = f"{counts[i, j]:,.0f}" + (f"\n{shares[i, j]:.0%}" if totals[i, 0] else "")
                axes.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)
    if len(counts) <= _NAMED:
        axes.set_xticks(every, names, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(every, names)
    axes.tick_params(labelsize=7, length=0)
    axes.set_xlabel("predicted", fontsize=8)
    axes.set_ylabel("true", fontsize=8)
    axes.set_title(literal(fit.title), fontsize=9, loc="left")
