"""What `embank finetune` prints."""

from collections.abc import Sequence
from typing import Any

from engine.report import console
from engine.report.console import write as print


def print_finetune(results: Sequence[dict[str, Any]]) -> None:
    """Print a line for each model, label and finding, and what a reader must know."""
    fits = [{**r, **fit, "own": fit is r} for r in results for fit in (*r.get("findings", ()), r)]
    score = f"{results[0]['select']} (val)"
    columns = ["model", "label", "steps", "best step", score, "accuracy", "95 %", "balanced", "AUROC"]
    console.print_table(columns, [_row(fit) for fit in fits])
    for r in results:
        parts = ", ".join(f"{n:,} {part}" for part, n in r["images"].items())
        print(
            f"{r['model']}, {r['label']}: {parts} images, {r['failed']:,} failed; batches of "
            f"{r['batch_size']:,}, lr {r['lr']:g} ({r['schedule']}), {r['epochs']:.1f} epochs; "
            f"{r['precision']} on {r['device']}, {r['trained_seconds']:.1f} s of training"
        )
        print(f"  weights: {r['weights']} in the bank")
        _print_remarks(r)
        for path in r.get("files", ()):
            print(f"  {path}")


def _row(r: dict[str, Any]) -> list[Any]:
    if "test" not in r or "reason" in r:
        return [r["model"], r["label"], *["-"] * 7]
    test, mean = r["test"], r["own"] and "findings" in r
    steps = ["", "", ""] if not r["own"] else [r["steps"], r["best_step"], r["val_score"]]
    return [
        r["model"],
        "mean" if mean else r["label"],
        *steps,
        test["accuracy"],
        _interval(test),
        test["mean_per_class_accuracy"],
        test["auroc"],
    ]


def _interval(test: dict[str, Any]) -> str:
    interval = test.get("intervals", {}).get("accuracy")
    if not interval:
        return ""
    return "undefined" if "reason" in interval else f"{interval['low']:.3f}-{interval['high']:.3f}"


def _print_remarks(r: dict[str, Any]) -> None:
    for part, codes in r["failures"].items():
        if codes:
            reasons = ", ".join(f"{code} {n:,}" for code, n in codes.items())
            print(f"  {part} images that failed, by reason: {reasons}")
    for note in r["notes"]:
        print(f"  {note}.")
    test = r["test"]
    if "auroc_of_decisions" in test:
        print(f"  AUROC of class decisions, as the study's second script: {test['auroc_of_decisions']:.4f}")
    if reason := test.get("auroc_reason"):
        print(f"  AUROC: {reason}")
    if reason := test.get("intervals", {}).get("accuracy", {}).get("reason"):
        print(f"  interval: {reason}")
