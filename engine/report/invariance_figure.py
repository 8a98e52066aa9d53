"""The figure of invariances, drawn from records alone: all transforms, and the cosine along parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.report.drawing import draw_figure
from engine.report.record_values import at, number, numbers, refuse_lacking, text
from stores.bank.records import RunRecord
from stores.manifest.uri_policy import plain

_SOFT = "#6a6a6a"
#: Panels with curves side by side, at most.
_COLUMNS = 3
#: Parts of a record that its figure shows.
NEEDED = (
    "asked.transform",
    "metrics.n",
    "metrics.by_view.names",
    "metrics.by_view.parameters",
    "metrics.by_view.cosine",
    "metrics.by_view.ci95",
    "used.covariance.images",
    "used.covariance.regularisation",
)
#: Parameter of a transform -> label of its axis, with the unit.
LABELS = {
    "degrees": "rotation, degrees counter-clockwise",
    "factor": "factor (1: unchanged)",
    "turns": "hue, turns of the colour circle",
    "sigma_px": "standard deviation of the blur, pixels",
    "bits": "bits a channel",
}


@dataclass(frozen=True, eq=False)
class Transform:
    """The invariance to one transform, as a record has it.

    Attributes:
        name: of the transform.
        cosine, ci95, baseline: mean cosine, half the width of its 95 % interval, mean cosine of different
            images.
        n: images scored.
        undefined: why there is no number, in a few words; "" where there is one.
        parameter: name of the transform's only parameter; "" where it has several, or is applied or not.
        values, curve, curve_ci95: float64 [k], that parameter of each view, the mean cosine and half the
            width of its 95 % interval.
    """

    name: str
    cosine: float
    ci95: float
    baseline: float
    n: float
    undefined: str
    parameter: str
    values: NDArray[np.float64]
    curve: NDArray[np.float64]
    curve_ci95: NDArray[np.float64]

    @classmethod
    def of(cls, record: RunRecord, name: str = "", remedy: str = "measure it again") -> "Transform":
        """Take the record of one transform.

        Args:
            name: of the record, and remedy: what to do where it lacks something, as for
                `engine.report.record_values.refuse_lacking`.

        Raises:
            Refused: it lacks what is drawn.
        """
        refuse_lacking(record, NEEDED, remedy, name)
        metrics = record.metrics
        names, parameters = at(metrics, "by_view.names"), at(metrics, "by_view.parameters")
        single = isinstance(names, list) and len(names) == 1
        views = parameters if isinstance(parameters, list) else []
        n = number(metrics["n"])
        return cls(
            name=text(record.asked["transform"]),
            cosine=number(metrics.get("cosine")),
            ci95=number(metrics.get("ci95")),
            baseline=number(metrics.get("baseline")),
            n=n,
            undefined=undefined(n, "views" not in metrics) if metrics.get("reason") else "",
            parameter=text(names[0]) if isinstance(names, list) and single and len(views) > 2 else "",
            values=np.array([number(view[0]) for view in views if isinstance(view, list) and single]),
            curve=numbers(at(metrics, "by_view.cosine")),
            curve_ci95=numbers(at(metrics, "by_view.ci95")),
        )


def undefined(n: float, all_grey: bool) -> str:
    """Say in a few words why a transform has no number.

    Args:
        n: images scored.
        all_grey: none was left, since all are grey.
    """
    if all_grey:
        return "undefined: all images are grey"
    return f"undefined: rests on {n:,.0f} image{'' if n == 1 else 's'}"


def invariance_figure(records: Sequence[RunRecord], out: Path) -> Path:
    """Draw bars of all transforms beside the baseline, and the cosine along each single parameter.

    Bands and error bars are 95 % intervals over patients or images; dotted lines are the mean cosine of
    different images. A transform with too few images is shown as undefined, without a number.

    Args:
        records: of one run, a transform each, at least one.
        out: PNG, SVG or PDF by its ending, written atomically; missing folders are made.

    Raises:
        Refused: a record lacks what is drawn, or the folder is not writable.
    """
    return draw_figure(lambda: draw_invariances(records), out, "invariance", dpi=110)


def draw_invariances(records: Sequence[RunRecord]) -> Any:
    """Return the matplotlib figure of `invariance_figure`, of at least one record."""
    import matplotlib.pyplot as plt

    results = [Transform.of(record) for record in records]
    curves = [result for result in results if result.parameter]
    columns, rows = min(_COLUMNS, len(curves)), -(-len(curves) // _COLUMNS)
    heights = [1.5 + 0.32 * len(results), 2.9 * rows]
    figure = plt.figure(figsize=(11, 0.5 + sum(heights)), layout="constrained")
    figure.suptitle(_title(records[0]), fontsize=10)
    parts = 2 if curves else 1
    subfigures: Any = figure.subfigures(parts, 1, squeeze=False, height_ratios=heights[:parts])
    _bars(subfigures[0][0].subplots(), results)
    if curves:
        grid = list(subfigures[1][0].subplots(rows, columns, squeeze=False).flat)
        for number_of_panel, (axes, result) in enumerate(zip(grid, curves, strict=False), start=1):
            _curve(axes, result, number_of_panel)
        for axes in grid[len(curves) :]:
            axes.set_axis_off()
    return figure


def _title(record: RunRecord) -> str:
    """Return the title: model, bank, mode, and the images of the covariance."""
    as_published = ", as the study's code" if record.asked.get("mode") == "as-published" else ""
    images = number(at(record.used, "covariance.images"))
    bank = text(record.metrics.get("bank"))
    how = text(at(record.used, "covariance.regularisation"))
    lines = (
        f"Invariance of {text(record.asked.get('model'))} on {bank}{as_published}",
        f"whitened by the covariance of {images:,.0f} images ({how})",
    )
    return "\n".join(_literal(line) for line in lines)


def _literal(text: str) -> str:
    """Return text that Matplotlib draws literally: a dollar would begin a formula."""
    return plain(text).replace("$", r"\$")


def _curve(axes: Any, result: Transform, number: int) -> None:
    axes.set_title(f"({chr(97 + number)}) {result.name}", fontsize=9, loc="left")
    axes.set_xlabel(LABELS.get(result.parameter, result.parameter), fontsize=8)
    axes.set_ylabel("mean cosine", fontsize=8)
    axes.set_ylim(-0.15, 1.05)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if result.parameter == "degrees":
        axes.locator_params(axis="x", steps=[1, 1.5, 3, 4.5, 9, 10])
    x, mean, half_width = result.values, result.curve, result.curve_ci95
    if result.undefined:
        axes.set_xlim(min(x), max(x))
        axes.text(0.5, 0.5, result.undefined, transform=axes.transAxes, ha="center", fontsize=8, color=_SOFT)
        return
    axes.plot(x, mean, color="#1f4e9c", linewidth=1.2)
    axes.fill_between(x, mean - half_width, mean + half_width, color="#1f4e9c", alpha=0.2, linewidth=0)
    axes.axhline(result.baseline, color="black", linestyle=":", linewidth=1)


def _bars(axes: Any, results: Sequence[Transform]) -> None:
    positions = np.arange(len(results))[::-1]
    for y, result in zip(positions, results, strict=True):
        if result.undefined:
            axes.text(0.01, y, result.undefined, va="center", fontsize=8, color=_SOFT)
            continue
        axes.barh(y, result.cosine, xerr=result.ci95, color="#4a7ab5", height=0.6)
        axes.plot([result.baseline] * 2, [y - 0.4, y + 0.4], color="black", linestyle=":")
    axes.set_yticks(positions, [f"{r.name} (n = {r.n:,.0f})" for r in results], fontsize=9)
    axes.set_ylim(-0.7, len(results) - 0.3)
    axes.set_xlim(min([0.0, *(r.cosine - 0.05 for r in results if not r.undefined)]), 1.05)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_xlabel(
        "mean cosine of whitened features before and after "
        "(error bars: 95 % intervals; dotted: different images)",
        fontsize=9,
    )
    what = "all transforms, " if len(results) > 1 else ""
    axes.set_title(f"(a) {what}mean over images and views; n: images", fontsize=9, loc="left")
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
