"""`embank models choose`: which model for some data."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.commands.checking import check_output
from engine.commands.choices import Evaluation, Mode
from engine.commands.comparing import Alpha, ComparedMetric, EvidenceEvaluation, Resamples
from engine.commands.declaring import PROTOCOL, Options, option
from engine.commands.options import (
    BankPath,
    Device,
    Force,
    Json,
    LabelColumn,
    MaybeFile,
    ModelsFilter,
    ModeOption,
    Seed,
    Threads,
    number,
)
from engine.commands.showing import noting, show
from stores.errors import MachineFault

if TYPE_CHECKING:
    from engine.evals.tradeoff.result import ModelChoice
    from stores.json_types import JsonObject


class What(Options):
    """Options for the models and what they are judged by."""

    label: LabelColumn = None
    model: ModelsFilter = None
    evaluation: EvidenceEvaluation = Evaluation.probe


class Protocol(Options):
    """Options for the evidence and for what counts as cheaper."""

    mode: ModeOption = Mode.default
    metric: ComparedMetric = None
    margin: Annotated[
        float,
        option(
            PROTOCOL,
            "--margin",
            metavar="SHARE",
            min=0,
            max=1,
            callback=number,
            help="Encoding rates that differ by no more than this share count as equal.",
        ),
    ] = 0.1
    resamples: Resamples = 2000
    alpha: Alpha = 0.05
    seed: Seed = 0


class Output(Options):
    """Options for files and printing."""

    out: MaybeFile = None
    force: Force = False
    json: Json = False


def models_choose(
    bank: BankPath,
    what: What,
    protocol: Protocol,
    output: Output,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Say which models of a bank are worth a choice for a label: evidence in pairs, beside the costs.

    Models without a record are probed first. The answer is a set: a model is left out if a member costs no
    more (images encoded a second in this bank's embed records, length and bytes of a feature, licence), and
    is either better after Holm's adjustment, or cannot be told apart and is cheaper. Models whose numbers are
    no evidence are not judged. -o takes a picture (.png, .svg or .pdf) of the metric against the rate, or a
    table of the models (.csv, .parquet or .json).
    """
    from engine.report import console
    from engine.report.choice_text import print_choice
    from stores.outputs import PICTURES

    out = output.out
    kinds = (*PICTURES, ".csv", ".parquet", ".json")
    check_output(out, bank, "models choose", output.force, kinds=kinds)
    document = _chosen(bank, what, protocol, device, threads).to_dict()
    undone: list[Exception] = []
    if out:
        with noting(undone):
            _write(document, out)
    written = None if undone else out
    shown = {**document, "file": written} if out else document
    show(shown, output.json, lambda: print_choice(document, written))
    for error in undone:
        console.say(f"Not written. {error}")
    if undone:
        raise typer.Exit(MachineFault.exit_code)


def _chosen(bank: str, what: What, protocol: Protocol, device: str, threads: int | None) -> "ModelChoice":
    from engine.evals.tradeoff.evaluate import choose_model
    from engine.report import console

    with console.probe_progress() as progress:
        return choose_model(
            bank,
            what.label or "label",
            evaluation=what.evaluation.value,
            models=what.model or (),
            metric=protocol.metric.field if protocol.metric else None,
            mode=protocol.mode.value,
            margin=protocol.margin,
            resamples=protocol.resamples,
            alpha=protocol.alpha,
            seed=protocol.seed,
            device=device,
            threads=threads,
            on_progress=progress,
        )


def _write(document: "JsonObject", out: Path) -> None:
    """Write the picture, or the table of the models."""
    from stores.outputs import PICTURES

    if out.suffix.lower() in PICTURES:
        from engine.report.choice_figure import choice_figure

        choice_figure(document, out)
    else:
        from engine.report.choice_text import write_models

        write_models(document, out)
