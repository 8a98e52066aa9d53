"""Figures of probes: validation score against the regularisation strength, and low-shot curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from engine.report.console import clipped
from engine.report.drawing import save_figure
from stores.manifest.uri_policy import plain

matplotlib.use("Agg")

#: Score by which C is chosen -> its name.
SCORES = {
    "accuracy": "accuracy",
    "mean-per-class": "mean per-class accuracy",
    "auroc": "AUROC",
    "log-loss": "log loss",
}
#: Longest name in a legend, in characters.
_LEGEND = 60
#: Number of curves in a panel: there are as many distinguishable colours.
_COLOURS = 10


def probe_figure(results: Sequence[Mapping[str, Any]], out: Path) -> Path:
    """Draw the sweeps of probes, one curve each, and their low-shot curves if there are any.

    A filled point marks the chosen C, a cross a fit that did not converge.

    Args:
        results: as `probe_from_bank` returns them, or the metrics of their records with `model` and `label`;
            C is chosen by the same score in all.
        out: PNG, SVG or PDF by its ending, written atomically; missing folders are made.

    Raises:
        Refused: the folder is not writable.
    """
    import matplotlib.pyplot as plt

    curves = [curve for result in results for curve in _curves(result)]
    with_low_shot = [result for result in results if result.get("low_shot")]
    rows, columns = max(1, -(-len(curves) // _COLOURS)), 1 + bool(with_low_shot)
    size = (6.4 + 4.6 * bool(with_low_shot), 4.0 * rows + 0.3 * min(len(curves), _COLOURS))
    figure = plt.figure(figsize=size, layout="constrained")
    grid: Any = figure.add_gridspec(rows, columns, width_ratios=[6.4, 4.6][:columns])
    for row in range(rows):
        sweeps(figure.add_subplot(grid[row, 0]), curves[row * _COLOURS : (row + 1) * _COLOURS])
    if with_low_shot:
        _low_shots(figure.add_subplot(grid[0, 1]), with_low_shot)
    save_figure(figure, out, "probe", dpi=130)
    plt.close(figure)
    return out


def _curves(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the single fits of a result: itself, or those of its findings that could be fitted."""
    findings = result.get("findings")
    if findings is None:
        return [result]
    return [{"model": result["model"], **finding} for finding in findings if finding.get("sweep")]


def sweeps(axes: Any, curves: Sequence[Mapping[str, Any]]) -> None:
    """Plot validation score against C, one curve for each single fit of `probe_figure`'s results."""
    several_models = len({curve["model"] for curve in curves}) > 1
    several_labels = len({curve["label"] for curve in curves}) > 1
    for i, curve in enumerate(curves):
        sweep, colour = curve["sweep"], f"C{i}"
        strength, score = np.array(sweep["C"]), np.array(sweep["val_score"], float)
        unconverged = ~np.array(sweep["converged"], bool)
        axes.plot(strength, score, color=colour, linewidth=1.4)
        axes.plot(strength[unconverged], score[unconverged], "x", color=colour, markersize=5)
        name = [curve["model"]] * (several_models or not several_labels) + [curve["label"]] * several_labels
        legend = f"{_literal(clipped(', '.join(name), _LEGEND))}: {_test_scores(curve)}"
        axes.plot(curve["best_C"], curve["val_score"], "o", color=colour, markersize=7, label=legend)
    if any(not all(curve["sweep"]["converged"]) for curve in curves):
        axes.plot([], [], "x", color="grey", label="not converged")
    axes.set_xscale("log")
    axes.set_xlabel("inverse regularisation C (weaker to the right)", fontsize=9)
    axes.set_ylabel(f"validation {SCORES[curves[0]['select']]}", fontsize=9)
    above = axes.secondary_xaxis("top", functions=(_inverse, _inverse))
    above.set_xlabel("weight decay 1 / C", fontsize=8)
    above.tick_params(labelsize=7)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines["right"].set_visible(False)
    if several_labels and not several_models:
        axes.set_title(_literal(curves[0]["model"]), fontsize=10)
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False)


def _literal(text: str) -> str:
    """Return text that Matplotlib draws literally: a dollar would begin a formula."""
    return plain(text).replace("$", r"\$")


def _inverse(values: Any) -> Any:
    """Return 1 / C, finite also at 0, where matplotlib evaluates it."""
    return 1.0 / np.maximum(values, 1e-300)


def _test_scores(curve: Mapping[str, Any]) -> str:
    test = curve["test"]
    return f"C = {curve['best_C']:.3g}, test accuracy {test['accuracy']:.3f}" + _auroc(test["auroc"])


def _auroc(value: float | None) -> str:
    return f", AUROC {value:.3f}" if value is not None and np.isfinite(value) else ""


def _low_shots(axes: Any, results: Sequence[Mapping[str, Any]]) -> None:
    several_labels = len({result["label"] for result in results}) > 1
    for i, result in enumerate(results):
        curve, colour = result["low_shot"]["curve"], f"C{i}"
        shots = np.array([point["shots"] for point in curve])
        x = shots * 1.02 ** (i - (len(results) - 1) / 2)  # shifted, so that bars do not hide one another
        mean = np.array([point["accuracy"]["mean"] for point in curve], float)
        half_width = np.array([point["accuracy"]["ci95"] for point in curve], float)  # NaN draws no bar
        name = result["model"] + (f", {result['label']}" if several_labels else "")
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
        axes.axhline(result["test"]["accuracy"], color=colour, linestyle=":", linewidth=1.2)
    axes.plot([], [], color="grey", linestyle=":", label="trained on all images")
    axes.set_xscale("log")
    axes.set_xticks(shots, [str(count) for count in shots])
    axes.minorticks_off()
    axes.set_xlabel("labelled images per class", fontsize=9)
    axes.set_ylabel("test accuracy, mean over seeds", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False)
