"""What `embank doctor` and `embank quickstart` print."""

from collections.abc import Mapping
from typing import Any

from engine.report import console, tables
from engine.report.console import write as print
from engine.report.study_text import print_outcome
from stores.json_types import JsonObject
from stores.manifest.uri_policy import plain

_MARKS = {"ok": "ok", "absent": "--", "broken": "!!"}


def print_examination(report: Mapping[str, Any]) -> None:
    """Print the findings of `doctor`, and whether the main job can run."""
    console.print_table(
        ["", "what", "found", "remedy"],
        [[_MARKS[f["status"]], f["name"], f["detail"], f["remedy"]] for f in report["findings"]],
    )
    if report["ok"]:
        print("The main job runs here.")
    else:
        print("The main job cannot run: fix the lines marked !!.")


def print_quickstart(document: JsonObject) -> None:
    """Print the verdict of the first run, what to do next, and what `embank study run` prints."""
    verdict = document["verdict"]
    for sentence in verdict if isinstance(verdict, list) else ():
        _print_wrapped(str(sentence))
    _print_wrapped(
        f"Everything is in {document['directory']}; run it again, and nothing is made twice. Next: your own "
        "images, see `embank embed --help` and `embank study run --help`."
    )
    print_outcome(document)


def _print_wrapped(text: str) -> None:
    for line in tables.wrapped(plain(text), console.width()):
        print(line)
