"""Figures of probes: validation score against the regularisation strength, and low-shot curves.

They are drawn from records alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from engine.report.console import clipped
from engine.report.drawing import save_figure
from engine.report.json_parts import members, objects
from engine.report.record_values import at, number, numbers, refuse_lacking, text
from stores.bank.records import RunRecord
from stores.json_types import Json
from stores.manifest.uri_policy import plain

matplotlib.use("Agg")

#: Score by which C is chosen -> its name.
SCORES = {
    "accuracy": "accuracy",
    "mean-per-class": "balanced accuracy",
    "auroc": "AUROC",
    "log-loss": "log loss",
}
#: Parts of a record that its figure shows; of several findings, each has its own sweep.
NEEDED = ("metrics.sweep.C", "metrics.sweep.val_score", "metrics.sweep.converged", "metrics.test")
NEEDED_OF_FINDINGS = ("metrics.findings", "metrics.test")
#: Longest name in a legend, in characters.
_LEGEND = 60
#: Number of curves in a panel: there are as many distinguishable colours.
_COLOURS = 10
#: Distance of a legend from the axes above it, in inches.
_BELOW = 0.48


@dataclass(frozen=True, eq=False)
class Sweep:
    """The sweep of one fit, as a record has it.

    Attributes:
        model, label: title of the feature, and the column learned.
        select: score by which C was chosen, a key of `SCORES`.
        C, val_score: float64 [n], inverse regularisation and validation score of each fit.
        converged: bool [n].
        best_C, best_score: the chosen fit.
        accuracy, auroc: on the test images, NaN where undefined.
    """

    model: str
    label: str
    select: str
    C: NDArray[np.float64]
    val_score: NDArray[np.float64]
    converged: NDArray[np.bool_]
    best_C: float
    best_score: float
    accuracy: float
    auroc: float

    @classmethod
    def of(cls, model: str, body: Mapping[str, Json]) -> "Sweep":
        """Take a record's metrics, or one of their findings."""
        sweep = at(body, "sweep")
        converged = at(sweep, "converged")
        return cls(
            model,
            text(body.get("label")),
            text(body.get("select")),
            numbers(at(sweep, "C")),
            numbers(at(sweep, "val_score")),
            np.array(converged if isinstance(converged, list) else [], np.bool_),
            number(body.get("best_C")),
            number(body.get("val_score")),
            number(at(body, "test.accuracy")),
            number(at(body, "test.auroc")),
        )

    @property
    def legend(self) -> str:
        """The chosen C and its scores on the test images."""
        auroc = f", AUROC {self.auroc:.3f}" if np.isfinite(self.auroc) else ""
        return f"C = {self.best_C:.3g}, test accuracy {self.accuracy:.3f}{auroc}"


def probe_figure(records: Sequence[RunRecord], out: Path) -> Path:
    """Draw the sweeps of probes, one curve each, and their low-shot curves if there are any.

    A filled point marks the chosen C, a cross a fit that did not converge.

    Args:
        records: of probes, at least one; C is chosen by the same score in all.
        out: PNG, SVG or PDF by its ending, written atomically; missing folders are made.

    Raises:
        Refused: a record lacks what is drawn, or the folder is not writable.
    """
    import matplotlib.pyplot as plt

    curves = [curve for record in records for curve in sweeps_of(record)]
    with_low_shot = [record for record in records if record.metrics.get("low_shot")]
    rows, columns = max(1, -(-len(curves) // _COLOURS)), 1 + bool(with_low_shot)
    size = (6.4 + 4.6 * bool(with_low_shot), 4.0 * rows + 0.3 * min(len(curves), _COLOURS))
    figure = plt.figure(figsize=size, layout="constrained")
    grid: Any = figure.add_gridspec(rows, columns, width_ratios=[6.4, 4.6][:columns])
    for row in range(rows):
        draw_sweeps(figure.add_subplot(grid[row, 0]), curves[row * _COLOURS : (row + 1) * _COLOURS])
    if with_low_shot:
        _low_shots(figure.add_subplot(grid[0, 1]), with_low_shot)
    save_figure(figure, out, "probe", dpi=130)
    plt.close(figure)
    return out


def sweeps_of(record: RunRecord, name: str = "", remedy: str = "run the probe again") -> list[Sweep]:
    """Return the single fits of a record: its only one, or those of its findings that could be fitted.

    Args:
        name: of the record, and remedy: what to do where it lacks something, as for
            `engine.report.record_values.refuse_lacking`.

    Raises:
        Refused: it lacks what is drawn.
    """
    model, findings = text(record.asked.get("model")), record.metrics.get("findings")
    if findings is None:
        refuse_lacking(record, NEEDED, remedy, name)
        return [Sweep.of(model, record.metrics)]
    refuse_lacking(record, NEEDED_OF_FINDINGS, remedy, name)
    fitted = [finding for finding in objects(findings) if "test" in finding]
    if not all(at(finding, "sweep.converged") for finding in fitted):
        refuse_lacking(record, ("metrics.findings.sweep",), remedy, name)
    return [Sweep.of(model, finding) for finding in fitted]


def draw_sweeps(axes: Any, curves: Sequence[Sweep]) -> None:
    """Plot validation score against C, one curve for each single fit."""
    several_models = len({curve.model for curve in curves}) > 1
    several_labels = len({curve.label for curve in curves}) > 1
    for i, curve in enumerate(curves):
        colour, unconverged = f"C{i}", ~curve.converged
        axes.plot(curve.C, curve.val_score, color=colour, linewidth=1.4)
        axes.plot(curve.C[unconverged], curve.val_score[unconverged], "x", color=colour, markersize=5)
        name = [curve.model] * (several_models or not several_labels) + [curve.label] * several_labels
        legend = f"{_literal(clipped(', '.join(name), _LEGEND))}: {curve.legend}"
        axes.plot(curve.best_C, curve.best_score, "o", color=colour, markersize=7, label=legend)
    if any(not curve.converged.all() for curve in curves):
        axes.plot([], [], "x", color="grey", label="not converged")
    axes.set_xscale("log")
    axes.set_xlabel("inverse regularisation C (weaker to the right)", fontsize=9)
    axes.set_ylabel(f"validation {SCORES.get(curves[0].select, curves[0].select)}", fontsize=9)
    above = axes.secondary_xaxis("top", functions=(_inverse, _inverse))
    above.set_xlabel("weight decay 1 / C", fontsize=8)
    above.tick_params(labelsize=7)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines["right"].set_visible(False)
    if several_labels and not several_models:
        axes.set_title(_literal(curves[0].model), fontsize=10)
    _legend_below(axes)


def _legend_below(axes: Any) -> None:
    """Draw the legend below the label of the horizontal axis, as far from it under low axes as high ones."""
    from matplotlib.transforms import ScaledTranslation

    below = axes.transAxes + ScaledTranslation(0, -_BELOW, axes.figure.dpi_scale_trans)
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=below, frameon=False)


def _literal(text: str) -> str:
    """Return text that Matplotlib draws literally: a dollar would begin a formula."""
    return plain(text).replace("$", r"\$")


def _inverse(values: Any) -> Any:
    """Return 1 / C, finite also at 0, where matplotlib evaluates it."""
    return 1.0 / np.maximum(values, 1e-300)


def _low_shots(axes: Any, records: Sequence[RunRecord]) -> None:
    several_labels = len({text(record.asked.get("label")) for record in records}) > 1
    for i, record in enumerate(records):
        curve, colour = objects(at(record.metrics, "low_shot.curve")), f"C{i}"
        shots = np.array([number(point.get("shots")) for point in curve])
        accuracy = [members(point.get("accuracy")) for point in curve]
        x = shots * 1.02 ** (i - (len(records) - 1) / 2)  # shifted, so that bars do not hide one another
        mean = np.array([number(each.get("mean")) for each in accuracy])
        half_width = np.array([number(each.get("ci95")) for each in accuracy])  # NaN draws no bar
        name = text(record.asked.get("model"))
        name += f", {text(record.asked.get('label'))}" if several_labels else ""
        axes.errorbar(
            x,
            mean,
            yerr=half_width,
            marker="o",
            markersize=4,
            capsize=3,
            color=colour,
            label=_literal(clipped(name, _LEGEND)),
        )
        axes.axhline(number(at(record.metrics, "test.accuracy")), color=colour, linestyle=":", linewidth=1.2)
    low, high = axes.get_ylim()  # an interval of few seeds may be wider than accuracies can be
    axes.set_ylim(max(low, -0.02), min(high, 1.02))
    axes.plot([], [], color="grey", linestyle=":", label="trained on all images")
    axes.set_xscale("log")
    axes.set_xticks(shots, [f"{count:g}" for count in shots])
    axes.minorticks_off()
    axes.set_xlabel("labelled images per class", fontsize=9)
    axes.set_ylabel("test accuracy, mean over seeds", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    _legend_below(axes)
