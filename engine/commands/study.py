"""`embank study`: one file in, every number out."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.commands.choices import Precision
from engine.commands.declaring import OUTPUT, WHAT, Options, command, option
from engine.commands.options import AnyPrecision, Device, Json, Scheduler, Threads, Workers
from engine.commands.processes import executor_of, terminable, threads_of_each
from engine.commands.showing import end_with_failures, show

if TYPE_CHECKING:
    from engine.report.study_text import GridCell
    from engine.study.plan import Plan, PlannedCell
    from engine.study.run import StudyOutcome
    from engine.study.study import Study
    from stores.json_types import JsonObject

app = typer.Typer(help="Studies: one file says what is embedded and evaluated.", no_args_is_help=True)

StudyFile = Annotated[
    str,
    typer.Argument(metavar="FILE", help="Study file, or the name of one that ships: quick.yaml, paper.yaml."),
]
StudyOrFolder = Annotated[
    str, typer.Argument(metavar="FILE|DIR", help="Study file, or the folder that a run has made.")
]
Folder = Annotated[
    Path | None,
    option(
        OUTPUT,
        "--dir",
        metavar="FOLDER",
        help="Folder for all files made.",
        show_default="the study's name",
    ),
]
#: States of cells that a run tries.
_OPEN = ("missing", "failed", "running")
#: Seconds between two looks of `--follow`.
_LOOK_S = 1.0


class Machine(Options):
    """Options for the machine."""

    device: Device = "auto"
    precision: AnyPrecision = Precision.auto
    threads: Threads = None
    workers: Workers = 0
    scheduler: Scheduler = None


class Output(Options):
    """Options for files and printing."""

    dir: Folder = None
    no_report: Annotated[bool, option(OUTPUT, "--no-report", help="Make no report.html.")] = False
    json: Json = False


@command(app, "run")
def study_run(
    file: StudyFile,
    machine: Machine,
    output: Output,
    estimate: Annotated[bool, option(WHAT, "--estimate", help="Only show what there is to do.")] = False,
) -> None:
    """Make what is missing of a study, and its report. Run it again to go on; nothing is made twice.

    A cell that fails does not stop the others: it is listed, the rest is made, and the exit code is 1. The
    path of the report is the last line printed.
    """
    from engine.report import study_text
    from engine.study.place import study_file
    from engine.study.read import read_study

    path, root = study_file(file)
    study = read_study(path, root)
    directory = output.dir or Path(study.name)
    if estimate:
        _show_plan(study, directory, output.json)
        return
    outcome = run_shown(study, directory, path, machine)
    document = document_of(study, outcome, None if output.no_report else _report(study, directory))
    study_text.print_failures([(failure.label, failure.why) for failure in outcome.failures])
    show(document, output.json, lambda: study_text.print_outcome(document))
    end_with_failures(bool(outcome.failures))


def _show_plan(study: "Study", directory: Path, json: bool) -> None:
    """Show what there is to do, how long it takes and how much disk."""
    from engine.report.plan_text import print_plan

    document = _plan(study, directory).to_dict()
    show(document, json, lambda: print_plan(document))


def _plan(study: "Study", directory: Path) -> "Plan":
    from engine.study.plan import plan

    return plan(study, directory)


def run_shown(study: "Study", directory: Path, file: Path, machine: Machine) -> "StudyOutcome":
    """Run a study, with its progress on stderr."""
    from engine.report import console
    from engine.report.plan_text import total
    from engine.report.study_progress import study_progress
    from engine.study.evaluating import Machine as Where
    from engine.study.progress import Hooks
    from engine.study.run import run_study

    planned = _plan(study, directory)
    if planned.todo:
        console.say(total(planned.to_dict()))
    expected = {one.cell.digest: one.seconds for one in planned.cells if one.state in _OPEN}
    grid = {one.cell.digest: _grid_cell(one) for one in planned.cells}
    labels = {one.cell.digest: one.cell.label for one in planned.cells}
    where = Where(
        machine.device, machine.precision.value, machine.threads or threads_of_each(machine.workers)
    )
    with (
        terminable(),
        executor_of(machine.workers, machine.scheduler, machine.device) as executor,
        study_progress(grid, labels, expected) as progress,
    ):
        hooks = Hooks(
            on_work=progress.on_work,
            on_state=lambda cell, state: progress.on_state(cell.digest, state),
            on_detail=progress.on_detail,
            on_embed=progress.on_embed,
        )
        return run_study(study, directory, file=file, machine=where, executor=executor, hooks=hooks)


def _grid_cell(planned: "PlannedCell") -> "GridCell":
    from engine.report.study_text import GridCell

    cell = planned.cell
    return GridCell(cell.dataset, cell.model, cell.evaluation, planned.state)


def _report(study: "Study", directory: Path) -> Path:
    from engine.study.reporting import write_report

    return write_report(study, directory)


def document_of(study: "Study", outcome: "StudyOutcome", report: Path | None) -> "JsonObject":
    """Return what `--json` prints."""
    return {
        "study": study.name,
        "directory": str(outcome.directory),
        "cells": outcome.cells,
        "done": outcome.done,
        "made": outcome.made,
        "impossible": len(outcome.impossible),
        "failed": [{**vars(failure)} for failure in outcome.failures],
        "seconds": round(outcome.seconds, 2),
        "report": None if report is None else str(report),
    }


@command(app, "status")
def study_status(
    study: StudyOrFolder,
    dir: Folder = None,
    follow: Annotated[
        bool, option(OUTPUT, "--follow", help="Look again every second, until the run has ended.")
    ] = False,
    json: Json = False,
) -> None:
    """Show which cells of a study are done, running, failed, missing or impossible. Nothing is changed."""
    from engine.report import study_text

    own, directory = _named(study, dir)
    if follow:
        _follow(own, directory)
    planned = _plan(own, directory)
    cells = [_grid_cell(one) for one in planned.cells]
    show(planned.to_dict(), json, lambda: study_text.print_grid(cells, _what(directory)))
    failed = [one for one in planned.cells if one.state == "failed"]
    study_text.print_failures([(one.cell.label, one.why) for one in failed])


def _named(word: str, directory: Path | None) -> "tuple[Study, Path]":
    """Return the study that a word names, and its folder."""
    from engine.study.place import study_file
    from engine.study.read import read_study
    from engine.study.status import study_in

    if Path(word).is_dir():
        return study_in(Path(word)), Path(word)
    path, root = study_file(word)
    study = read_study(path, root)
    return study, directory or Path(study.name)


def _what(directory: Path) -> str:
    from engine.study.progress import running

    return running(directory)[1]


def _follow(study: "Study", directory: Path) -> None:
    """Show the grid on stderr, again and again, while a run is at work; Ctrl-C ends the watch."""
    from engine.report.study_progress import watch
    from engine.study.locking import holder_of

    with watch() as draw:
        while holder_of(directory) is not None:
            draw([_grid_cell(one) for one in _plan(study, directory).cells], _what(directory))
            time.sleep(_LOOK_S)
