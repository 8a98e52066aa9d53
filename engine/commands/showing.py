"""Output of commands: print a result, name what could not be written, end with an exit code."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import typer

from stores.errors import EmbankError, MachineFault, Refused

if TYPE_CHECKING:
    from stores.bank.records import Batch

#: Done, but too many rows failed, or damage was found.
EXIT_FAILED_ROWS = 1


def show(document: Any, json: bool, text: Callable[[], None]) -> None:
    """Print a result: as one JSON document, or as `text` prints it, after its `validity` if it has that."""
    if json:
        from engine.report import console

        console.print_json(document)
        return
    reports = document if isinstance(document, list) else [document]
    if any(isinstance(report, dict) and report.get("validity") for report in reports):
        from engine.report.validity_text import print_validity

        print_validity(reports)
    text()


def one_or_all(results: Sequence[Any]) -> Any:
    """Return the JSON document of results: the result itself if there is only one."""
    return results if len(results) > 1 else results[0]


def end_with_failures(failed: bool) -> None:
    """Exit with 1 if rows failed or damage was found."""
    if failed:
        raise typer.Exit(EXIT_FAILED_ROWS)


@contextlib.contextmanager
def noting(undone: list[Exception]) -> Iterator[None]:
    """Note an output that cannot be written, so that the numbers are printed all the same.

    A changed image is refused instead, before a record is kept.
    """
    from engine.errors import ChangedImage

    try:
        yield
    except ChangedImage:
        raise
    except (EmbankError, OSError) as error:
        undone.append(error)


def say_undone(batch: "Batch", undone: list[Exception] | tuple[()] = ()) -> None:
    """Say, after the numbers, which record or output they have not; exit 3 unless the bank is read-only."""
    from engine.report import console

    for lost in batch.lost:
        console.say(f"No record was kept. {lost}")
    for error in undone:
        console.say(f"Not written. {error}")
    if undone or not all(lost.exit_code == Refused.exit_code for lost in batch.lost):
        raise typer.Exit(MachineFault.exit_code)
