"""What `embank knn` prints."""

from typing import Any

from engine.report import console
from engine.report.console import write as print
from engine.report.evaluation_text import print_splits
from engine.report.marks import marked


def print_knn(r: dict[str, Any]) -> None:
    parts = "leave-one-out" if r["leave_one_out"] else f"{r['train_split']} to {r['test_split']}"
    parts += ", patients apart" if r["group_disjoint"] else ""
    missing = ", ".join(f"{n:,} {reason.replace('_', ' ')}" for reason, n in r["masked"].items())
    console.print_table(
        ["k", "accuracy", "balanced accuracy", "AUROC"],
        [_row(m, r if m["k"] == r["k"] else {}) for m in r["by_k"]],
    )
    print(
        f"{r['model']}: {parts}, {r['distance']} distance, {r['weights']} votes",
        f"{r['test_images']:,} images classified by {r['train_images']:,}, {r['classes']} classes; missing: "
        f"{missing}; {r['backend']}, {r['seconds']:.2f} s",
        sep="\n",
    )
    print_splits(r)
    if reason := r["test"].get("auroc_reason"):
        print(f"AUROC: {reason}.")


def _row(at_k: dict[str, Any], headline: dict[str, Any]) -> list[Any]:
    """Return the numbers of one k; controls have the k of the headline."""
    metrics = ("accuracy", "mean_per_class_accuracy", "auroc")
    return [at_k["k"], *(marked(at_k[name], headline, name) for name in metrics)]
