"""What `embank probe` prints."""

from pathlib import Path
from typing import Any

from engine.report import console
from engine.report.console import write as print
from engine.report.controls_text import print_controls
from engine.report.marks import marked
from engine.report.operating_text import print_operating


def print_probe(results: list[dict[str, Any]], out: Path | None, plot: str = "selection") -> None:
    """Print the results of probes.

    Args:
        out: where a picture was drawn; plot: its kind.
    """
    fits = [fit for r in results for fit in _fits(r)]
    columns = ["model", "label", "C", "1/C", fits[-1]["select"] + " (val)", "accuracy", "95 %", "balanced"]
    console.print_table([*columns, "AUROC", "converged"], [_probe_row(fit) for fit in fits])
    for r in results:
        if "images" in r:
            parts = ", ".join(f"{n:,} {part}" for part, n in r["images"].items())
            missing = ", ".join(f"{n:,} {reason}" for reason, n in r["masked"].items())
            print(f"{r['model']}, {r['label']}: {parts} images; missing: {missing}; {r['seconds']:.2f} s")
        for fit in (r, *r.get("findings", ())):
            if fit is not r and "masked" in fit:
                missing = ", ".join(f"{n:,} {reason}" for reason, n in fit["masked"].items())
                print(f"  {fit['label']}: missing: {missing}")
            for note in fit.get("notes", ()):
                print(f"  {'' if fit is r else fit['label'] + ': '}{note}")
            if reason := fit.get("test", {}).get("auroc_reason"):
                print(f"  AUROC: {reason}")
            if reason := fit.get("test", {}).get("intervals", {}).get("accuracy", {}).get("reason"):
                print(f"  interval: {reason}")
    print_operating([fit for fit in fits if "calibration" in fit])
    for r in results:
        _print_low_shot(r)
    print_controls(results)
    if out:
        from engine.report.probe_plots.draw import WORDS

        print(f"{out}: {WORDS[plot]}")


def _fits(r: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the findings of a result, if any, and the result, each with what its row says."""
    common = {"model": r["model"], "below_control": r.get("below_control")}
    findings = [{**one, **common, "finding": one["label"]} for one in r.get("findings", ())]
    return [*findings, {**r, "finding": ""}]


def _probe_row(r: dict[str, Any]) -> list[Any]:
    if "test" not in r:
        return [r["model"], r["label"], *["-"] * 8]
    test, mean = r["test"], r["best_C"] is None
    interval = test.get("intervals", {}).get("accuracy")
    return [
        r["model"],
        "mean" if mean else r["label"],
        "" if mean else f"{r['best_C']:.3g}",
        "" if mean else f"{r['weight_decay']:.3g}",
        r["val_score"],
        marked(test["accuracy"], r, "accuracy", r["finding"]),
        ""
        if not interval
        else "undefined"
        if "reason" in interval
        else f"{interval['low']:.3f}-{interval['high']:.3f}",
        marked(test["mean_per_class_accuracy"], r, "mean_per_class_accuracy", r["finding"]),
        marked(test["auroc"], r, "auroc", r["finding"]),
        "yes" if r["converged"] else "NO",
    ]


def _print_low_shot(r: dict[str, Any]) -> None:
    if not r.get("low_shot"):
        return
    rows = [
        [point["shots"], point["images"]]
        + [f"{point[name]['mean']:.4f} ± {point[name]['ci95']:.4f}" for name in ("accuracy", "auroc")]
        for point in r["low_shot"]["curve"]
    ]
    title = f"{r['model']}, {r['label']}: mean of {r['low_shot']['seeds']} seeds"
    console.print_table(["images a class", "images", "accuracy", "AUROC"], rows, title=title)
