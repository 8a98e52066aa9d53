"""`embank compare`: which of several models is better, and whether the difference is real."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.commands.checking import check_output
from engine.commands.choices import Plot
from engine.commands.comparing import Alpha, ComparedEvaluation, ComparedMetric, Resamples
from engine.commands.declaring import PROTOCOL, WHAT, Options, option
from engine.commands.options import (
    ComparisonPlot,
    Force,
    Json,
    LabelColumn,
    MaybeFile,
    ModelsFilter,
    Seed,
    Threads,
)
from engine.commands.showing import noting, show
from stores.errors import MachineFault, Refused

if TYPE_CHECKING:
    from stores.json_types import JsonObject

Sources = Annotated[
    list[str],
    typer.Argument(metavar="BANK|RECORD...", help="Banks, or records as BANK/records/RECORD."),
]


class What(Options):
    """Options for the records that are compared."""

    evaluation: ComparedEvaluation = None
    model: ModelsFilter = None
    label: LabelColumn = None
    by_finding: Annotated[
        bool, option(WHAT, "--by-finding", help="Also compare each finding; or each class, by its AUROC.")
    ] = False
    common: Annotated[
        bool, option(WHAT, "--common", help="Where the images differ, compare on those that all models have.")
    ] = False


class Protocol(Options):
    """Options for the metric and the statistics."""

    metric: ComparedMetric = None
    resamples: Resamples = 2000
    bca: Annotated[
        bool, option(PROTOCOL, "--bca", help="Bias-corrected, accelerated intervals instead of percentiles.")
    ] = False
    alpha: Alpha = 0.05
    seed: Seed = 0


class Output(Options):
    """Options for files and printing."""

    out: MaybeFile = None
    plot: ComparisonPlot = None
    force: Force = False
    json: Json = False


def compare(
    sources: Sources, what: What, protocol: Protocol, output: Output, threads: Threads = None
) -> None:
    """Compare models in pairs, by their records of one evaluation on the same images.

    Of a bank it takes the latest record of each model. Differences have 95 % intervals over patients, and p
    values that Holm's method adjusts for all pairs shown: DeLong's test for AUROC, McNemar's for accuracy,
    both with the images of a patient together, else the bootstrap's. Models with a letter in common cannot be
    told apart. -o takes a picture (.png, .svg or .pdf) or a table of the pairs (.csv, .parquet or .json).
    --plot says which picture: forest (the differences) or ranking (the models, and the sets that cannot be
    told apart).
    """
    from engine.evals.comparison.choose import source_of
    from engine.report import console
    from engine.report.compare_text import print_comparison
    from stores.outputs import PICTURES

    out = output.out
    bank, _ = source_of(sources[0])
    kinds = (*PICTURES, ".csv", ".parquet", ".json")
    check_output(out, str(bank.path), "compare", output.force, kinds=kinds)
    plot = _plot(output)
    document = _compared(sources, what, protocol, threads)
    undone: list[Exception] = []
    if out:
        with noting(undone):
            _write(document, out, plot)
    written = None if undone else out
    shown = {**document, "file": written} if out else document
    show(shown, output.json, lambda: print_comparison(document, written, plot))
    for error in undone:
        console.say(f"Not written. {error}")
    if undone:
        raise typer.Exit(MachineFault.exit_code)


def _compared(sources: list[str], what: What, protocol: Protocol, threads: int | None) -> "JsonObject":
    from engine.evals.comparison.evaluate import compare
    from engine.runtime import usable_cores

    result = compare(
        sources,
        what.evaluation.value if what.evaluation else None,
        models=what.model or (),
        label=what.label,
        metric=protocol.metric.field if protocol.metric else None,
        by_finding=what.by_finding,
        common=what.common,
        resamples=protocol.resamples,
        bca=protocol.bca,
        alpha=protocol.alpha,
        seed=protocol.seed,
        threads=threads or usable_cores(),
    )
    return result.to_dict()


def _plot(output: Output) -> str:
    """Return the kind of picture. Raises Refused where there could be none."""
    from stores.outputs import PICTURES

    if output.plot and (output.out is None or output.out.suffix.lower() not in PICTURES):
        where = f"with -o {output.out}" if output.out else "without -o"
        raise Refused(
            f"--plot {output.plot.value} {where}",
            "It is a kind of picture",
            f"name its file with -o, ending in {', '.join(PICTURES)}",
        )
    return (output.plot or Plot.forest).value


def _write(document: "JsonObject", out: Path, plot: str) -> None:
    """Write the picture, or the table of the pairs."""
    from stores.outputs import PICTURES

    if out.suffix.lower() not in PICTURES:
        from engine.report.compare_text import write_pairs

        write_pairs(document, out)
    elif plot == Plot.ranking:
        from engine.report.ranking_figure import ranking_figure

        ranking_figure(document, out)
    else:
        from engine.report.compare_figure import comparison_figure

        comparison_figure(document, out)
