"""What `embank doctor` and `embank quickstart` print."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from engine.report import console
from engine.report.console import write as print

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


class Table(Protocol):
    """A table of the quickstart."""

    @property
    def title(self) -> str: ...
    @property
    def columns(self) -> Sequence[str]: ...
    @property
    def rows(self) -> Sequence[Sequence[Any]]: ...


def print_quickstart(tables: Sequence[Table], paths: Mapping[str, str]) -> None:
    """Print the tables of the quickstart, where everything lies, and what to do next."""
    for table in tables:
        console.print_table(table.columns, table.rows, title=table.title)
    for what, path in paths.items():
        print(f"{what:12} {path}")
    print()
    print("Run it again: nothing is embedded twice. Next: your own images, see `embank embed --help`.")
