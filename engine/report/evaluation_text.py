"""Lines that several evaluations print in the same way."""

from typing import Any

from engine.evals.common.splits import others_note
from engine.report.console import write as print


def print_notes(results: list[dict[str, Any]]) -> None:
    """Print each sentence once, whichever models it is about."""
    for note in dict.fromkeys(note for r in results for note in r["notes"]):
        print(f"{note}.")


def over_patients(interval: dict[str, Any], places: str = ".4f") -> str:
    """Format an interval over patients, or the reason why there is none."""
    if reason := interval.get("reason"):
        return f"no interval over patients: {reason}"
    return f"{interval['low']:{places}} to {interval['high']:{places}} over {interval['groups']:,} patients"


def print_splits(r: dict[str, Any]) -> None:
    """Print which split each word was matched to, and the images of splits that were not used."""
    for note in (*r["split_notes"], others_note(r["other_splits"])):
        if note:
            print(f"  {note}")
