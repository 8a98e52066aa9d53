"""Tables of cross-validated probes."""

from collections.abc import Mapping, Sequence
from typing import Any

from engine.report import console

#: Metric -> its name in a table.
_METRICS = {"accuracy": "accuracy", "mean_per_class_accuracy": "balanced", "auroc": "AUROC"}


def print_folds(results: Sequence[Mapping[str, Any]]) -> None:
    """Print mean and standard deviation over folds, and the metrics of the pooled predictions.

    Args:
        results: with `model`, `label`, `folds` and `test`.
    """
    count = results[0]["folds"]["folds"] * results[0]["folds"]["repeats"]
    columns = ["model", "label", *_METRICS.values()]
    rows = [[one["model"], one["label"], *(_over(one, metric) for metric in _METRICS)] for one in results]
    console.print_table(columns, rows, title=f"Mean ± standard deviation over {count} folds")
    rows = [[one["model"], one["label"], *(_pooled(one, metric) for metric in _METRICS)] for one in results]
    console.print_table(columns, rows, title="Predictions of all folds together, with 95 % intervals")
    for one in results:
        _print_facts(one)


def _over(one: Mapping[str, Any], metric: str) -> str:
    over = one["folds"]["metrics"][metric]
    if over["folds"] == 0:
        return "undefined"
    return f"{over['mean']:.3f} ± {over['sd']:.3f}" if over["folds"] > 1 else f"{over['mean']:.3f}"


def _pooled(one: Mapping[str, Any], metric: str) -> str:
    value, interval = one["test"][metric], one["test"].get("intervals", {}).get(metric)
    shown = f"{value:.3f}" if value == value else "undefined"
    if not interval or "reason" in interval:
        return shown
    return f"{shown} ({interval['low']:.2f}-{interval['high']:.2f})"


def _print_facts(one: Mapping[str, Any]) -> None:
    """Print what was tested, which C were chosen, and the remarks."""
    missing = ", ".join(f"{n:,} {reason}" for reason, n in one["masked"].items())
    chosen = sorted({fold["best_C"] for fold in one["folds"]["by_fold"]})
    between = f"{chosen[0]:.3g}" if len(chosen) == 1 else f"{chosen[0]:.3g} to {chosen[-1]:.3g}"
    start = f"{one['model']}, {one['label']}"
    console.write(f"{start}: {one['images']['tested']:,} images; missing: {missing}; {one['seconds']:.2f} s")
    console.write(f"  C {between}; {'all' if one['converged'] else 'NOT all'} fits converged")
    for note in one["notes"]:
        console.write(f"  {note}")
    if reason := one["test"].get("auroc_reason"):
        console.write(f"  AUROC of all folds together: {reason}")
