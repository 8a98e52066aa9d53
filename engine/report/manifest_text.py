"""What `embank manifest` prints."""

from pathlib import Path
from typing import Any

from engine.report import console
from engine.report.console import write as print


def print_written(out: Path, rows: int, classes: int, digest: str) -> None:
    """Print what was written."""
    print(f"{out}: {rows:,} images, {classes} classes, digest {digest[:12]}")


def print_check(report: dict[str, Any]) -> None:
    """Print the classes of a manifest, and what is wrong with it."""
    console.print_table(
        ["split", "label", "images"],
        [
            [split or "-", label or "(none)", n]
            for split, counts in report["class_counts"].items()
            for label, n in counts.items()
        ],
    )
    for problem in report["problems"]:
        print(f"{problem['severity']}: {problem['text']}. Remedy: {problem['remedy']}.")
        for example in problem["examples"]:
            print(f"  {example}")
    if not report["problems"]:
        print("No problem found.")


def print_cut(by: str, splits: dict[str, Any], folds: dict[str, Any]) -> None:
    """Print how many images and patients of each class the splits and folds have."""
    for name, parts in (("split", splits), ("fold", folds)):
        rows = [
            [part, label or "(none)", images, counts["groups"] if label == first else ""]
            for part, counts in parts.items()
            for first in [next(iter(counts["classes"]))]
            for label, images in counts["classes"].items()
        ]
        if rows:
            patients = "patients" if by == "group" else "images in all"
            console.print_table([name, "label", "images", patients], rows)
