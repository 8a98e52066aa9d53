"""What `embank search` prints."""

from pathlib import Path
from typing import Any

from engine.report import console
from engine.report.console import write as print


def print_search(report: dict[str, Any], neighbours: Any, query: Path | str | None) -> None:
    print(f"Nearest to {query} by {report['model']} ({report['distance']} distance)")
    console.print_table(
        ["rank", "image", "label", "split", "group", "distance"],
        [[f.rank, f.image_id, f.label, f.split, f.group, f.distance] for f in neighbours],
    )
    if (same := report["query"].get("in_bank")) and not report["query_listed"]:
        names = ", ".join(f"{image['image_id']} (row {image['row']})" for image in same[:5])
        print(f"The query itself is {names}: not listed (--keep-query lists it)")
    if report["masked"]:
        print(f"{report['images']:,} images searched, {report['masked']:,} without an embedding left out")
    k = report["k"]
    if (recall := report.get(f"recall_at_{k}")) is not None:
        measured = report["recall_measured_on"]
        print(f"{report['index']}: recall@{k} {recall:.4f}, measured on {measured} images")
    if sheet := report.get("sheet"):
        print(f"{sheet}: query and {len(neighbours)} neighbours, {report['unreadable']} pictures unreadable")
