"""`embank doctor` and `embank quickstart`: the machine, and the first run."""

from pathlib import Path
from typing import Annotated

import typer

from engine.commands.declaring import OUTPUT, option
from engine.commands.options import Json
from engine.commands.processes import terminable
from engine.commands.showing import say_undone, show
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
    """Run the main job on real pictures with real weights, offline: manifest, embed, evaluate."""
    from engine.quickstart import run
    from engine.report import console
    from engine.report.machine_text import print_quickstart
    from stores.bank.records import together

    with console.embed_progress(quiet=json) as update, terminable(), together() as batch:
        result = run(dir, on_progress=update, say=console.say)
    tables = (result.fewshot, result.probes)
    show(result.to_dict(), json, lambda: print_quickstart(tables, result.paths))
    say_undone(batch)
