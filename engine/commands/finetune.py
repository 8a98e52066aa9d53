"""`embank finetune`: train a backbone on with a linear head."""

import contextlib
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from engine.commands.checking import by_model, read_manifest
from engine.commands.choices import ClassWeight, Mode, Precision, Schedule
from engine.commands.declaring import OUTPUT, PROTOCOL, Options, option
from engine.commands.options import (
    AllowOutside,
    AnyPrecision,
    BankOut,
    BlankFindings,
    Bootstrap,
    ClassWeightOption,
    Device,
    Force,
    Holdout,
    Json,
    LabelColumns,
    LearningRate,
    ManifestPath,
    MaxFailed,
    MaybeFolder,
    Models,
    ModelWeights,
    ModeOption,
    MultiLabel,
    RecipeWord,
    Root,
    Seed,
    SelectScore,
    Steps,
    TestSplit,
    Threads,
    TrainBatch,
    TrainSplit,
    UncertainFindings,
    ValFraction,
    ValSplit,
)
from engine.commands.processes import terminable
from engine.commands.showing import end_with_failures, noting, one_or_all, say_undone, show

if TYPE_CHECKING:
    from engine.evals.finetune.options import FinetuneOptions
    from engine.evals.finetune.progress import Hooks, Validation
    from engine.evals.probe.options import Policies
    from engine.models.catalog.lookup import ModelSpec
    from engine.report.tensorboard_log import RunLogs
    from engine.runtime import Runtime
    from stores.bank.records import Batch
    from stores.json_types import JsonObject
    from stores.manifest.manifest import Manifest


class What(Options):
    """Options for images, models, labels and splits."""

    model: Models
    weights: ModelWeights = None
    recipe: RecipeWord = None
    label: LabelColumns = None
    multi_label: MultiLabel = False
    train_split: TrainSplit = "train"
    val_split: ValSplit = "val"
    test_split: TestSplit = "test"
    val_fraction: ValFraction = 0.2
    holdout: Holdout = False
    root: Root = None
    allow_outside: AllowOutside = False

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.label or ("label",))


class Protocol(Options):
    """Options for the training."""

    mode: ModeOption = Mode.default
    steps: Steps = 5000
    lr: LearningRate = 1e-2
    momentum: Annotated[float, option(PROTOCOL, help="Nesterov momentum.")] = 0.9
    weight_decay: Annotated[
        float, option(PROTOCOL, "--weight-decay", help="Weight decay of all parameters.")
    ] = 1e-8
    schedule: Annotated[
        Schedule, option(PROTOCOL, help="Learning rate: cosine falls to 0 over --steps, constant stays.")
    ] = Schedule.cosine
    validate_every: Annotated[
        int, option(PROTOCOL, "--validate-every", min=1, help="Updates between two validations.")
    ] = 200
    patience: Annotated[
        int,
        option(
            PROTOCOL,
            min=0,
            help="Validations below the best one after which training stops; 0 never stops.",
        ),
    ] = 3
    select: SelectScore = None
    class_weight: ClassWeightOption = ClassWeight.none
    accumulate: Annotated[
        int,
        option(PROTOCOL, min=1, help="Parts that a batch is cut into, where memory is small."),
    ] = 1
    uncertain: UncertainFindings = None
    blank: BlankFindings = None
    bootstrap: Bootstrap = 1000
    max_failed: MaxFailed = 0.01
    seed: Seed = 0

    def options(self, what: What, batch_size: int | None) -> "FinetuneOptions":
        from engine.evals.finetune.options import FinetuneOptions
        from engine.evals.probe.options import SplitOptions

        splits = (what.train_split, what.val_split, what.test_split, what.val_fraction, what.holdout)
        return FinetuneOptions(
            mode=self.mode.value,
            steps=self.steps,
            batch_size=batch_size,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            schedule=self.schedule.value,
            validate_every=self.validate_every,
            patience=self.patience,
            class_weight=self.class_weight.value,
            accumulate=self.accumulate,
            select=self.select.value if self.select else None,
            bootstrap=self.bootstrap,
            seed=self.seed,
            findings=what.labels if what.multi_label else (),
            policies=self.policies(what),
            splits=SplitOptions(*splits, self.seed, self.mode.value),
        )

    def policies(self, what: What) -> "Policies | None":
        from engine.evals.probe.options import Policies

        if not (what.multi_label or self.uncertain or self.blank):
            return None
        words: tuple[Any, Any] = (self.uncertain and self.uncertain.value, self.blank and self.blank.value)
        return Policies.of(self.mode.value, *words)


class Machine(Options):
    """Options for the machine."""

    batch_size: TrainBatch = None
    device: Device = "auto"
    precision: AnyPrecision = Precision.auto
    threads: Threads = None

    def runtime(self, protocol: Protocol) -> "Runtime":
        from engine.runtime import Runtime

        published = protocol.mode is Mode.as_published and self.precision is Precision.auto
        precision = Precision.fp32 if published else self.precision
        return Runtime.resolve(self.device, precision.value, self.threads, protocol.seed)


class Output(Options):
    """Options for files and printing."""

    bank: BankOut
    out: MaybeFolder = None
    tensorboard: Annotated[
        Path | None,
        option(
            OUTPUT,
            metavar="FOLDER",
            help="Also write event files, which a running TensorBoard shows as training goes on.",
        ),
    ] = None
    force: Force = False
    json: Json = False


def finetune(
    manifest: ManifestPath, what: What, protocol: Protocol, machine: Machine, output: Output
) -> None:
    """Train backbones on with a linear head on random crops, and test them. Run it again to resume.

    Repeat --model for several models, and --label for several columns. Parts are those of `embank probe`.
    By default the weights that scored best on validation are tested; --mode as-published takes the study's
    schedule and the last weights. -o takes the folder for copies of the weights, which `embank embed
    --weights` reads, and for learning curves (PNG and CSV).
    """
    from engine.evals.finetune.bank import finetune as run
    from engine.report.finetune_progress import show_progress
    from engine.report.finetune_text import print_finetune
    from stores.bank.records import together

    options, runtime = protocol.options(what, machine.batch_size), machine.runtime(protocol)
    specs = _specs(what, protocol.seed)
    images = read_manifest(manifest, what.root, what.allow_outside)
    _check_files(images, what, output)
    undone: list[Exception] = []
    with terminable(), together() as batch, show_progress() as hooks, _event_files(output) as logs:
        results = run(
            images,
            specs,
            output.bank,
            options,
            label=what.labels,
            runtime=runtime,
            allow_outside=what.allow_outside,
            hooks=_logging(hooks, logs, what, undone),
        )
        _log_all(results, logs, what, undone)
    _write_files(results, batch, what, output, undone)
    show(one_or_all(results), output.json, lambda: print_finetune(results))
    say_undone(batch, undone)
    end_with_failures(any(_share_failed(result) > protocol.max_failed for result in results))


def _specs(what: What, seed: int) -> "list[ModelSpec]":
    """Resolve the models with their weights and preprocessing."""
    from engine.models import resolve
    from engine.recipes import load_recipe

    words = by_model("--weights", "file", what.weights or [], what.model)
    recipe = load_recipe(what.recipe) if what.recipe else None
    files = [Path(word) if word else None for word in words]
    pairs = zip(what.model, files, strict=True)
    return [resolve(slug, weights=file, recipe=recipe, seed=seed) for slug, file in pairs]


def _stem(model: object, label: object, what: What) -> str:
    """Return the beginning of the names of a run's files."""
    from engine.evals.finetune.export import stem

    return stem(str(model), str(label), len(what.labels) > 1 and not what.multi_label)


def _check_files(images: "Manifest", what: What, output: Output) -> None:
    """Refuse a folder for files that must not be written into, before anything is computed."""
    if output.out is None:
        return
    from engine.evals.finetune.export import check_copies
    from engine.report.learning_curves import is_table
    from stores.outputs import PICTURES, Images, check_file

    stems = [_stem(model, label, what) for model in what.model for label in what.labels]
    check_copies(output.out, stems, force=output.force)
    for path in (output.out / f"{name}{ending}" for name in stems for ending in (".png", ".csv")):
        check_file(
            path,
            (*PICTURES, ".csv"),
            command="finetune",
            force=output.force or is_table(path),
            images=lambda: Images.of(images),
        )


def _write_files(
    results: "list[JsonObject]", batch: "Batch", what: What, output: Output, undone: list[Exception]
) -> None:
    """Copy weights and draw learning curves into the folder, if one was given."""
    if output.out is None:
        return
    from engine.evals.finetune.export import write_copies
    from engine.report.learning_curves import learning_curves_figure, table_beside
    from stores.backends.location import place

    for result, record in zip(results, batch.made, strict=True):
        with noting(undone):
            name = _stem(result["model"], result["label"], what)
            paths = write_copies(place(output.bank), str(result["weights"]), output.out, name)
            figure = learning_curves_figure([record], output.out / f"{name}.png")
            result["files"] = [str(path) for path in (*paths, figure, table_beside(figure))]


def _event_files(output: Output) -> "AbstractContextManager[RunLogs | None]":
    """Return the event files of TensorBoard, if they were requested."""
    if output.tensorboard is None:
        return contextlib.nullcontext()
    from engine.report.tensorboard_log import RunLogs

    return RunLogs(output.tensorboard)


def _logging(hooks: "Hooks", logs: "RunLogs | None", what: What, undone: list[Exception]) -> "Hooks":
    """Return hooks that also write event files; the first that cannot be written is the last one tried."""
    if logs is None:
        return hooks
    from engine.report.learning_curves import scalars

    def log(validation: "Validation") -> None:
        if not undone:
            with noting(undone):
                name = _stem(validation.model, validation.label, what)
                logs.show(name, scalars(validation.curve, validation.select))

    return replace(hooks, on_validation=log)


def _log_all(
    results: "list[JsonObject]", logs: "RunLogs | None", what: What, undone: list[Exception]
) -> None:
    """Write event files of runs that were finished before, too."""
    if logs is None or undone:
        return
    from engine.evals.finetune.curve import Curve
    from engine.report.json_parts import members
    from engine.report.learning_curves import scalars

    for result in results:
        with noting(undone):
            curve = Curve.from_dict(members(result["curve"]))
            logs.show(_stem(result["model"], result["label"], what), scalars(curve, str(result["select"])))


def _share_failed(result: "JsonObject") -> float:
    images = result["images"]
    assert isinstance(images, dict)
    return float(str(result["failed"])) / sum(int(str(count)) for count in images.values())
