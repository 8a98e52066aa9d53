"""Pictures of probes: validation score against the regularisation strength, and low-shot curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from engine.report.console import clipped
from engine.report.drawing import save_figure
from stores.manifest.uri_policy import plain

matplotlib.use("Agg")

#: Names of the scores that C is chosen by.
SCORES = {
    "accuracy": "accuracy",
    "mean-per-class": "mean per-class accuracy",
    "auroc": "AUROC",
    "log-loss": "log loss",
}
#: Characters of a name in a legend.
_LEGEND = 60
#: Curves a panel can hold in colours that are told apart.
_COLOURS = 10


def probe_figure(results: Sequence[Mapping[str, Any]], out: Path) -> Path:
    """Draw the sweeps of probes, one curve each, and their low-shot curves if there are any.

    A filled point marks the chosen C, a cross a fit that did not converge.

    Args:
        results: as `probe_from_bank` gives them, or the metrics of their records with `model` and `label`;
            all chosen by the same score.
        out: PNG, SVG or PDF by its ending, written whole or not at all; missing folders are made.

    Raises:
        Refused: the folder is not writable.
    """
    import matplotlib.pyplot as plt

    curves = [each for result in results for each in _curves(result)]
    low = [result for result in results if result.get("low_shot")]
    rows = max(1, -(-len(curves) // _COLOURS))
    size = (6.4 + 4.6 * bool(low), 4.0 * rows + 0.3 * min(len(curves), _COLOURS))
    figure = plt.figure(figsize=size, layout="constrained")
    grid: Any = figure.add_gridspec(rows, 1 + bool(low), width_ratios=[6.4, 4.6][: 1 + bool(low)])
    for row in range(rows):
        part = curves[row * _COLOURS : (row + 1) * _COLOURS]
        sweeps(figure.add_subplot(grid[row, 0]), part)
    if low:
        _low_shots(figure.add_subplot(grid[0, 1]), low)
    save_figure(figure, out, "probe", dpi=130)
    plt.close(figure)
    return out


def _curves(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The single fits of a result: itself, or its findings that could be fitted."""
    findings = result.get("findings")
    if findings is None:
        return [result]
    return [{"model": result["model"], **each} for each in findings if each.get("sweep")]


def sweeps(axes: Any, curves: Sequence[Mapping[str, Any]]) -> None:
    """Validation score against C, a curve for each single fit of `probe_figure`'s results."""
    several = len({curve["model"] for curve in curves}) > 1
    labels = len({curve["label"] for curve in curves}) > 1
    for at, curve in enumerate(curves):
        sweep, colour = curve["sweep"], f"C{at}"
        strength, score = np.array(sweep["C"]), np.array(sweep["val_score"], float)
        stuck = ~np.array(sweep["converged"], bool)
        axes.plot(strength, score, color=colour, linewidth=1.4)
        axes.plot(strength[stuck], score[stuck], "x", color=colour, markersize=5)
        name = [curve["model"]] * (several or not labels) + [curve["label"]] * labels
        legend = f"{_literal(clipped(', '.join(name), _LEGEND))}: {_found(curve)}"
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
    if labels and not several:
        axes.set_title(_literal(curves[0]["model"]), fontsize=10)
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False)


def _literal(text: str) -> str:
    """Text that Matplotlib draws as it is: a dollar would begin a formula."""
    return plain(text).replace("$", r"\$")


def _inverse(values: Any) -> Any:
    """1 / C, for matplotlib also at 0."""
    return 1.0 / np.maximum(values, 1e-300)


def _found(curve: Mapping[str, Any]) -> str:
    test = curve["test"]
    return f"C = {curve['best_C']:.3g}, test accuracy {test['accuracy']:.3f}" + _area(test["auroc"])


def _area(value: float | None) -> str:
    return f", AUROC {value:.3f}" if value is not None and np.isfinite(value) else ""


def _low_shots(axes: Any, results: Sequence[Mapping[str, Any]]) -> None:
    labels = len({result["label"] for result in results}) > 1
    for at, result in enumerate(results):
        found, colour = result["low_shot"]["curve"], f"C{at}"
        shots = np.array([each["shots"] for each in found])
        beside = shots * 1.02 ** (at - (len(results) - 1) / 2)  # so that bars do not hide one another
        mean = np.array([each["accuracy"]["mean"] for each in found], float)
        half = np.array([each["accuracy"]["ci95"] for each in found], float)  # no bar where NaN
        name = result["model"] + (f", {result['label']}" if labels else "")
        axes.errorbar(
            beside,
            mean,
            yerr=half,
            marker="o",
            markersize=4,
            capsize=3,
            color=colour,
            label=_literal(clipped(name, _LEGEND)),
        )
        axes.axhline(result["test"]["accuracy"], color=colour, linestyle=":", linewidth=1.2)
    axes.plot([], [], color="grey", linestyle=":", label="trained on all images")
    axes.set_xscale("log")
    axes.set_xticks(shots, [str(each) for each in shots])
    axes.minorticks_off()
    axes.set_xlabel("labelled images per class", fontsize=9)
    axes.set_ylabel("test accuracy, mean over seeds", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False)
