"""What several evaluations print alike."""

from typing import Any

from engine.evals.common.splits import others_note
from engine.report.console import write as print


def print_notes(results: list[dict[str, Any]]) -> None:
    """Each sentence once, whichever models it is on."""
    for note in dict.fromkeys(note for r in results for note in r["notes"]):
        print(f"{note}.")


def over_patients(found: dict[str, Any], places: str = ".4f") -> str:
    """An interval over patients, or why there is none."""
    if reason := found.get("reason"):
        return f"no interval over patients: {reason}"
    return f"{found['low']:{places}} to {found['high']:{places}} over {found['groups']:,} patients"


def print_splits(r: dict[str, Any]) -> None:
    """Which split was taken for which word, and the images of splits that were not asked for."""
    for note in (*r["split_notes"], others_note(r["other_splits"])):
        if note:
            print(f"  {note}")
