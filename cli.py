"""The command line: all groups of commands, and the translation of errors into exit codes."""

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from engine.commands import (
    bank,
    bench,
    compare,
    datasets,
    embed,
    fewshot,
    finetune,
    invariance,
    knn,
    machine,
    manifest,
    models,
    perceptual,
    probe,
    reconstruct,
    records,
    report,
    saliency,
    search,
    study,
)
from engine.commands.declaring import GENERAL, command, option
from engine.commands.options import number
from engine.report.console import write as print
from stores.errors import EmbankError, MachineFault

#: Panels of the list of commands, in the order in which they are needed.
START, STORE, EVALUATE, CATALOGUES = "The machine", "Images and banks", "Evaluations", "Catalogues"

app = typer.Typer(
    name="embank",
    help="Bank the embeddings of medical images once; evaluate them for ever after.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
command(app, rich_help_panel=START)(machine.doctor)
command(app, rich_help_panel=START)(machine.quickstart)
command(app, rich_help_panel=START, context_settings=bench.SETTINGS)(bench.bench)
command(app, rich_help_panel=STORE)(embed.embed)
command(app, rich_help_panel=EVALUATE)(fewshot.fewshot)
command(app, rich_help_panel=EVALUATE)(knn.knn)
command(app, rich_help_panel=EVALUATE)(probe.probe)
command(app, rich_help_panel=EVALUATE)(finetune.finetune)
command(app, rich_help_panel=EVALUATE)(search.search)
command(app, rich_help_panel=EVALUATE)(saliency.saliency)
command(app, rich_help_panel=EVALUATE)(invariance.invariance)
command(app, rich_help_panel=EVALUATE)(reconstruct.reconstruct)
command(app, rich_help_panel=EVALUATE)(perceptual.perceptual)
command(app, rich_help_panel=EVALUATE)(compare.compare)
command(app, rich_help_panel=EVALUATE)(report.report)
app.add_typer(manifest.app, name="manifest", rich_help_panel=STORE)
app.add_typer(bank.app, name="bank", rich_help_panel=STORE)
app.add_typer(records.app, name="records", rich_help_panel=EVALUATE)
app.add_typer(study.app, name="study", rich_help_panel=EVALUATE)
app.add_typer(models.app, name="models", rich_help_panel=CATALOGUES)
app.add_typer(datasets.app, name="datasets", rich_help_panel=CATALOGUES)


def _say_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"embank {version('embank')}")
        raise typer.Exit


Version = Annotated[
    bool,
    option(GENERAL, "--version", is_eager=True, callback=_say_version, help="Print the version and exit."),
]
StoreTimeout = Annotated[
    float | None,
    option(
        GENERAL,
        "--store-timeout",
        min=0.1,
        max=86_400,
        callback=number,
        metavar="SECONDS",
        help="Longest wait for an answer from a bucket.",
        show_default="EMBANK_STORE_TIMEOUT, else 30",
    ),
]


@app.callback()
def settings(version: Version = False, store_timeout: StoreTimeout = None) -> None:
    if store_timeout is not None:
        from stores.backends.deadlines import TIMEOUT_VARIABLE

        os.environ[TIMEOUT_VARIABLE] = str(
            store_timeout
        )  # so that worker processes of this machine inherit it


def main(run: Callable[[], Any] = app) -> None:
    """Run the command line; every error ends in its exit code, with value, rule and remedy on stderr."""
    from engine.report import process

    with process.guarded_errors():
        _run(run)


def _run(run: Callable[[], Any]) -> None:
    from engine.report import process

    try:
        with process.prepared():
            run()
    except EmbankError as error:
        from engine.report import console

        console.print_error(error)
        sys.exit(error.exit_code)
    except OSError as error:
        from engine.report import console

        console.print_error(
            MachineFault(
                f"{error.strerror or error} ({error.filename or 'no file named'})",
                "The machine must read and write its files",
                "fix it and run the same command; committed work is kept",
            )
        )
        sys.exit(MachineFault.exit_code)
    except Exception as error:  # each library has its own errors for these
        from engine import faults
        from engine.report import console

        fault = faults.translate(error) or process.unexpected(error)
        console.print_error(fault)
        sys.exit(fault.exit_code)


if __name__ == "__main__":
    main()
