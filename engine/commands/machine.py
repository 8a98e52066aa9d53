"""`embank doctor` and `embank quickstart`: the machine, and the first run."""

from pathlib import Path
from typing import Annotated

import typer

from engine.commands.declaring import OUTPUT, option
from engine.commands.options import Json
from engine.commands.showing import end_with_failures, show
from stores.errors import MachineFault

Folder = Annotated[Path, option(OUTPUT, "--dir", metavar="FOLDER", help="Folder for all files made.")]


def doctor(json: Json = False) -> None:
    """Show what this machine can do, what is missing, and how to install or repair it."""
    from engine.doctor import examine, report
    from engine.report.machine_text import print_examination

    examination = report(examine())
    show(examination, json, lambda: print_examination(examination))
    if not examination["ok"]:
        raise typer.Exit(MachineFault.exit_code)


def quickstart(dir: Folder = Path("quickstart"), json: Json = False) -> None:
    """Run the study quick.yaml, which ships with embank, on real pictures with real weights, offline.

    Run it again to go on. It ends in the report of the study; the path of its page is the last line printed.
    """
    from engine.commands.study import Machine, document_of, run_shown
    from engine.quickstart import quickstart as first_run
    from engine.report.machine_text import print_quickstart
    from engine.report.study_text import print_failures

    run = first_run()
    outcome = run_shown(run.study, dir, run.file, Machine())
    document = document_of(run.study, outcome, run.report(dir))
    document["verdict"] = list(run.verdict(dir))
    print_failures([(failure.label, failure.why) for failure in outcome.failures])
    show(document, json, lambda: print_quickstart(document))
    end_with_failures(bool(outcome.failures))
