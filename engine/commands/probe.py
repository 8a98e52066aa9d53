"""`embank probe`: logistic regression on frozen features."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from engine.commands.all_models import models_of
from engine.commands.checking import check_output
from engine.commands.choices import Backend, ClassWeight, Mode, Plot, Threshold
from engine.commands.declaring import PROTOCOL, Options, option
from engine.commands.options import (
    BankPath,
    BlankFindings,
    Bootstrap,
    ClassWeightOption,
    Controls,
    Device,
    Force,
    Holdout,
    Json,
    LabelColumns,
    MaybeFile,
    Models,
    ModeOption,
    MultiLabel,
    ProbePlot,
    Scheduler,
    Seed,
    SelectScore,
    SolverBackend,
    Specificity,
    StrataColumns,
    TestSplit,
    ThresholdRule,
    TrainSplit,
    UncertainFindings,
    ValFraction,
    ValSplit,
    Workers,
)
from engine.commands.probe_validation import Validation, external_of, folds_of
from engine.commands.processes import executor_of, threads_of_each
from engine.commands.showing import noting, one_or_all, say_undone, show
from stores.errors import Refused

if TYPE_CHECKING:
    from engine.evals.probe.bank import BankProbe
    from engine.evals.probe.evaluate import ProbeOptions
    from engine.evals.probe.fold_options import Folds
    from stores.bank.records import Batch


class What(Options):
    """Options for labels, features and splits."""

    model: Models
    label: LabelColumns = None
    multi_label: MultiLabel = False
    train_split: TrainSplit = "train"
    val_split: ValSplit = "val"
    test_split: TestSplit = "test"
    val_fraction: ValFraction = 0.2
    strata: StrataColumns = None
    holdout: Holdout = False


class Protocol(Options):
    """Options for fits, the choice of C, and intervals."""

    mode: ModeOption = Mode.default
    uncertain: UncertainFindings = None
    blank: BlankFindings = None
    c_min: Annotated[
        float, option(PROTOCOL, "--c-min", help="Smallest inverse regularisation C; it regularises most.")
    ] = 1e-5
    c_max: Annotated[
        float,
        option(PROTOCOL, "--c-max", help="Largest inverse regularisation C; 1/C is weight decay."),
    ] = 1e6
    values: Annotated[int, option(PROTOCOL, help="Values of C tried, evenly spaced in log C.")] = 45
    select: SelectScore = None
    standardise: Annotated[
        bool,
        option(
            PROTOCOL,
            "--standardise/--no-standardise",
            help="By mean and deviation of the rows fitted; --no-standardise keeps features unscaled.",
        ),
    ] = True
    class_weight: ClassWeightOption = ClassWeight.none
    low_shot: Annotated[
        str | None,
        option(
            PROTOCOL,
            "--low-shot",
            metavar="COUNTS",
            help="Also train on these numbers of images per class, e.g. 1,2,5,10.",
        ),
    ] = None
    seeds: Annotated[int, option(PROTOCOL, help="Draws of --low-shot.")] = 5
    specificity: Specificity = 0.95
    threshold: ThresholdRule = Threshold.youden
    controls: Controls = False
    bootstrap: Bootstrap = 1000
    seed: Seed = 0


class Machine(Options):
    """Options for the machine."""

    backend: SolverBackend = Backend.batched
    device: Device = "auto"
    workers: Workers = 0
    scheduler: Scheduler = None


class Output(Options):
    """Options for files and printing."""

    out: MaybeFile = None
    plot: ProbePlot = None
    force: Force = False
    json: Json = False


def probe(
    bank: BankPath,
    what: What,
    validation: Validation,
    protocol: Protocol,
    machine: Machine,
    output: Output,
) -> None:
    """Fit logistic probes on frozen features from the bank alone: choose C on validation, refit, test.

    Repeat --model for several models, or give all, and --label for several columns. Columns are findings with
    --multi-label, --uncertain or --blank. A temperature and, of two classes, a threshold are taken from the
    validation scores of the fit on train. --mode as-published takes the study's order of the grid, its warm
    starts and its 100 iterations. --external tests the probe on other banks, too; --folds cross-validates. -o
    takes a picture (.png, .svg, .pdf); --plot says which: selection of C, reliability, curves (ROC and
    precision-recall), confusion, strata or low-shot.
    """
    from engine.evals.probe.bank import probes_from_bank
    from engine.evals.probe.matrix import probe_matrix
    from engine.report import console
    from stores.bank.records import together

    out = output.out
    check_output(out, bank, "probe", output.force)
    kind = _plot(output, what.strata, protocol.low_shot)
    options = _options(protocol, machine)
    wanted = _wanted(what, validation, protocol, folds_of(validation, out))
    models = models_of(bank, what.model)
    run = probe_matrix if validation.matrix else probes_from_bank
    with (
        together() as batch,
        executor_of(machine.workers, machine.scheduler, machine.device) as executor,
        console.probe_progress() as progress,
    ):
        results = run(bank, models, wanted, options, executor=executor, on_progress=progress)
    undone = _draw(batch, out, kind, bank)
    _show(results, output, None if undone else out, kind)
    say_undone(batch, undone)


def _options(protocol: Protocol, machine: Machine) -> "ProbeOptions":
    from engine.evals.common.compute import evaluation_device
    from engine.evals.probe.evaluate import ProbeOptions
    from engine.evals.probe.selection import grid
    from engine.runtime import usable_cores

    return ProbeOptions(
        C=grid(protocol.c_min, protocol.c_max, protocol.values),
        standardise=protocol.standardise,
        class_weight=protocol.class_weight.value,
        select=protocol.select.value if protocol.select else None,
        mode=protocol.mode.value,
        backend=machine.backend.value,
        bootstrap=protocol.bootstrap,
        seed=protocol.seed,
        specificity=protocol.specificity,
        threshold=protocol.threshold.value,
        device=evaluation_device(machine.device),
        threads=threads_of_each(machine.workers) or usable_cores(),
    )


def _wanted(what: What, validation: Validation, protocol: Protocol, folds: "Folds | None") -> "BankProbe":
    """Return which labels are learned from which rows."""
    from engine.evals.probe.bank import BankProbe
    from engine.evals.probe.lowshot import LowShot
    from engine.evals.probe.parts import SplitOptions
    from engine.evals.probe.stratify import Stratify
    from engine.evals.probe.targets import Policies

    mode, seed, uncertain, blank = protocol.mode, protocol.seed, protocol.uncertain, protocol.blank
    policies = None
    if what.multi_label or uncertain or blank:
        words: tuple[Any, Any] = (uncertain and uncertain.value, blank and blank.value)
        policies = Policies.of(mode.value, *words)
    return BankProbe(
        labels=tuple(what.label or ("label",)),
        multi_label=what.multi_label,
        policies=policies,
        splits=SplitOptions(
            what.train_split,
            what.val_split,
            what.test_split,
            what.val_fraction,
            what.holdout,
            seed,
            mode.value,
        ),
        low_shot=LowShot.parse(protocol.low_shot, protocol.seeds, seed) if protocol.low_shot else None,
        strata=tuple(map(Stratify.parse, what.strata or ())),
        controls=protocol.controls,
        external=external_of(validation),
        folds=folds,
    )


def _plot(output: Output, strata: list[str] | None, low_shot: str | None) -> str:
    """Return the kind of picture. Raises Refused where there could be none."""
    if output.plot and not output.out:
        raise Refused(
            f"--plot {output.plot.value} without -o", "It is a kind of picture", "name its file with -o"
        )
    if output.plot is Plot.strata and not strata:
        raise Refused("--plot strata without --strata", "Strata are columns", "name one with --strata COLUMN")
    if output.plot is Plot.low_shot and not low_shot:
        raise Refused(
            "--plot low-shot without --low-shot",
            "The curve is over numbers of images per class",
            "name them with --low-shot 1,2,5",
        )
    return (output.plot or Plot.selection).value


def _show(results: list[dict[str, Any]], output: Output, drawn: Path | None, kind: str) -> None:
    """Print the results, those of a matrix with their banks' names.

    Args:
        drawn: the picture, if there is one; kind: what it shows.
    """
    from engine.report.external_text import with_banks

    shown = [{**result, "plot": drawn} for result in results] if output.out else results
    if "bank" in results[0] and not output.json:
        shown = with_banks(shown)
    show(one_or_all(shown), output.json, lambda: _print(results, shown, drawn, kind))


def _print(results: list[dict[str, Any]], shown: list[dict[str, Any]], drawn: Path | None, kind: str) -> None:
    from engine.report.external_text import print_external, print_matrix
    from engine.report.folds_text import print_folds
    from engine.report.probe_text import print_probe

    if "folds" in results[0]:
        print_folds(results)
        return
    print_probe(shown, drawn, kind)
    if "bank" in results[0]:
        print_matrix(results)
    else:
        print_external(results)


def _draw(batch: "Batch", out: Path | None, kind: str, bank: str) -> list[Exception]:
    """Draw the picture of the records, if there is to be one. Returns why it could not be drawn."""
    undone: list[Exception] = []
    if out:
        from engine.report.probe_plots.draw import draw_probes

        with noting(undone):
            draw_probes(batch.made, out, kind, bank)
    return undone
