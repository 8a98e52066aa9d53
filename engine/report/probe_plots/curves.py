"""ROC and precision-recall curves of probes, with bands over patients, or images where none is known."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.kernels.intervals.curve_bands import Curve, precision_recall_curve, roc_curve
from engine.kernels.metrics import auroc, average_precision
from engine.kernels.operating_points import one_sided
from engine.report.console import clipped
from engine.report.probe_plots.fits import Answers
from engine.report.probe_plots.style import COLOURS, GREY, STYLES, legend_below, literal, square

#: Curves in a panel, and curves up to which bands are drawn.
_CURVES, _BANDS = 14, 4
#: Most resamples of a band: its edges are drawn a line's width exactly.
_RESAMPLES = 500
_LEGEND = 30


def draw_curves(records: Sequence[Sequence[Answers]]) -> Any:
    """Draw a row with both curves for each record; records of one curve each share a row.

    Args:
        records: the answers of each.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = _rows(records)
    legends = [-(-len(row) // 2) for row in rows]
    heights = [4.25 + 0.17 * lines for lines in legends]
    figure = plt.figure(figsize=(7.6, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, row in zip(parts, rows, strict=True):
        _draw_row(part, row)
    return figure


def _rows(records: Sequence[Sequence[Answers]]) -> list[list[Answers]]:
    if all(len(answers) == 1 for answers in records):
        every = [answers[0] for answers in records]
        return [every[start : start + _CURVES] for start in range(0, len(every), _CURVES)]
    return [
        [*answers[start : start + _CURVES]]
        for answers in records
        for start in range(0, len(answers), _CURVES)
    ]


def _draw_row(part: Any, row: Sequence[Answers]) -> None:
    roc, precision = part.subplots(1, 2)
    several_models = len({own.model for own in row}) > 1
    labels = {own.label for own in row}
    banded = len(row) <= _BANDS
    handles = []
    for place, own in enumerate(row):
        resamples = min(own.resamples, _RESAMPLES) if banded else 0
        data = (own.positive, own.score, own.groups, resamples, own.seed)
        look = {"color": COLOURS[place % len(COLOURS)], "linestyle": STYLES[place % len(STYLES)]}
        curve = roc_curve(*data)
        handles += _draw_curve(roc, curve, look, where="post")
        _draw_curve(precision, precision_recall_curve(*data), look, where="pre")
        words = [own.model] * several_models + [own.label] * (len(labels) > 1) + [own.name] * bool(own.name)
        name = literal(clipped(", ".join(words) or own.label, _LEGEND))
        handles[-1].set_label(f"{name}: {_areas(own)}")
    roc.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, zorder=0)
    rest = row[0].model if not several_models else row[0].label if len(labels) == 1 else "probes"
    if not several_models and len(labels) == 1:
        rest = f"{rest}, {row[0].label}"
    square(roc, "1 - specificity", "sensitivity", rest)
    units = "patients" if any((own.groups >= 0).any() for own in row) else "images"
    bands = f"bands: 95 % over {units}" if banded and any(own.resamples > 1 for own in row) else ""
    square(precision, "recall (sensitivity)", "precision (PPV)", bands)
    legend_below(part, handles, 2)


def _areas(own: Answers) -> str:
    """Return the areas under both curves, and how many images are positive."""
    count = f"({int(own.positive.sum()):,} of {len(own.positive):,})"
    if reason := one_sided(own.positive):
        return f"no curve, {reason} {count}"
    scores = np.stack([-own.score, own.score], axis=1)
    area, _ = auroc(own.positive.astype(np.int64), scores)
    return f"AUROC {area:.3f}, AP {average_precision(own.positive, own.score):.3f} {count}"


def _draw_curve(axes: Any, curve: Curve, look: dict[str, str], where: str) -> list[Any]:
    """Draw steps and the band; return the line."""
    lines: list[Any] = axes.step(curve.x, curve.y, where=where, linewidth=1.5, **look)
    if np.isfinite(curve.low).any():
        axes.fill_between(curve.places, curve.low, curve.high, color=look["color"], alpha=0.18, linewidth=0)
    return lines
