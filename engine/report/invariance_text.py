"""What `embank invariance` prints."""

from engine.report import console
from engine.report.console import write as print
from engine.report.json_parts import members, objects
from stores.json_types import JsonObject


def print_invariances(reports: list[JsonObject]) -> None:
    """Print cosines as a table, the covariance, what was left out and why a number is undefined."""
    columns = ["transform", "cosine", "± 95 %", "different images", "Mahalanobis", "images"]
    names = ("transform", "cosine", "ci95", "baseline", "mahalanobis", "n")
    rows = [["" if r.get(n) is None or r[n] != r[n] else r[n] for n in names] for r in reports]
    for row, r in zip(rows, reports, strict=True):
        row[1] = "undefined" if "reason" in r else row[1]
    console.print_table(columns, rows)
    first = reports[0]
    for c in objects(first["covariance"]):
        print(
            f"{first['model']}: covariance of {c['images']:,} images, {c['dimensions']:,} dimensions, "
            f"{c['regularisation']}, condition number {c['condition']:.3g}"
        )
    for r in reports:
        gone: JsonObject = {"failed": r["failed"]} if "failed" in r else members(r["left_out"])
        if any(gone.values()):
            named = ", ".join(f"{n:,} {why.replace('_', ' ')}" for why, n in gone.items() if n)
            print(f"{r['transform']}: left out: {named}")
        if "reason" in r:
            print(f"{r['transform']} is not defined: {r['reason']}.")
    sentences = first.get("not_reproduced")
    for sentence in sentences if isinstance(sentences, list) else ():
        print(f"not reproduced: {sentence}.")
