"""What `embank bank audit` prints."""

from typing import Any

from engine.report import console
from engine.report.console import write as print


def print_audit(r: dict[str, Any]) -> None:
    same, groups, unknown = r["identical"], r["groups"], r["unknown"]
    rows: list[list[Any]] = [
        ["pairs", r["pairs"], f"of {r['images_in_pairs']:,} images"],
        ["  across splits", r["across_splits"], f"{unknown['split']:,} with an image in no split"],
        ["  of different labels", r["different_label"], f"{unknown['label']:,} with an unlabelled image"],
        ["  of different groups", r["different_group"], f"{unknown['group']:,} with an image of no group"],
        ["  of the same group", r["same_group"], ""],
        ["images with an identical embedding", same["images"], f"in {same['groups']:,} sets"],
        ["  sets across splits", same["groups_across_splits"], ""],
        ["groups (patients) in several splits", groups["across_splits"], f"of {groups['total']:,}"],
        ["  images of these", groups["images_of_these"], ""],
        ["  more, if case, zeros and .0 are nothing", groups["across_splits_by_spelling"], ""],
    ]
    print(f"{r['model']}: {r['images']:,} images ({r['masked']:,} missing), cosine >= {r['threshold']:g}")
    console.print_table(["", "found", ""], rows)
    for name in ("file", "sheet"):
        if name in r:
            print(f"{name}: {r[name]}")
