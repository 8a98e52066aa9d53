"""`embank embed`: the main job."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from engine.commands.checking import by_model, read_manifest
from engine.commands.choices import Decoder, Precision, StoredType
from engine.commands.declaring import MACHINE, OUTPUT, PROTOCOL, WHAT, Options, option
from engine.commands.options import (
    AllowOutside,
    AnyPrecision,
    BankOut,
    Device,
    EmbedBatch,
    Json,
    ManifestPath,
    MaxFailed,
    Models,
    ModelWeights,
    RecipeWord,
    Root,
    Scheduler,
    Seed,
    Threads,
    Workers,
)
from engine.commands.processes import executor_of, terminable, threads_of_each
from engine.commands.showing import end_with_failures, one_or_all, show
from stores.errors import Refused

if TYPE_CHECKING:
    from engine.embed.options import EmbedOptions, InputChecks
    from engine.embed.report import EmbedReport, EmbedReportJson
    from engine.models.catalog.lookup import ModelSpec
    from engine.recipes import Recipe
    from stores.manifest.manifest import Manifest


class What(Options):
    """Options for images and models."""

    model: Models
    weights: ModelWeights = None
    name: Annotated[
        list[str] | None,
        option(
            WHAT,
            metavar="NAME|SLUG=NAME ...",
            help="Name of the features, assigned like --weights.",
            show_default="SLUG",
        ),
    ] = None
    recipe: RecipeWord = None
    depth: Annotated[
        str | None,
        option(
            WHAT,
            metavar="RULE",
            help="For more than 8 bits: scale, voi (DICOM's own window) or window:LOW,HIGH.",
        ),
    ] = None
    deep: Annotated[
        list[str] | None,
        option(
            WHAT,
            metavar="RULE ...",
            help="Like --depth, but only for rows that fail without it; the others and the key stay. "
            "The first rule that fits is used.",
        ),
    ] = None
    root: Root = None
    allow_outside: AllowOutside = False


class Protocol(Options):
    """Options for decoding, storage and checks."""

    dct: Annotated[
        bool,
        option(
            PROTOCOL,
            "--dct",
            help="Let the JPEG decoder scale: much faster on large files, within 0.5/255 on average.",
        ),
    ] = False
    dtype: Annotated[StoredType, option(PROTOCOL, help="Type of the stored embeddings.")] = StoredType.float16
    max_pixels: Annotated[int, option(PROTOCOL, "--max-pixels", min=1, help="Largest image decoded.")] = (
        64_000_000
    )
    max_failed: MaxFailed = 0.01
    retry_failed: Annotated[
        bool,
        option(PROTOCOL, "--retry-failed", help="Try again the rows that failed because of their image."),
    ] = False
    check: Annotated[
        bool,
        option(
            PROTOCOL,
            "--check",
            help="Compare every image embedded before with its file, not a random sample.",
        ),
    ] = False
    accept_changed: Annotated[
        bool,
        option(
            PROTOCOL,
            "--accept-changed",
            help="If images have changed, make features of the new ones beside the old.",
        ),
    ] = False
    seed: Seed = 0

    def checks(self) -> "InputChecks":
        from engine.embed.options import InputChecks

        return InputChecks(self.max_failed, self.check, self.accept_changed, self.retry_failed)


class Machine(Options):
    """Options for the machine."""

    device: Device = "auto"
    precision: AnyPrecision = Precision.auto
    decoder: Annotated[Decoder, option(MACHINE, help="Decoder of the images.")] = Decoder.auto
    batch_size: EmbedBatch = None
    threads: Threads = None
    compile: Annotated[
        bool, option(MACHINE, "--compile", help="Compile the backbone with torch.compile.")
    ] = False
    workers: Workers = 0
    scheduler: Scheduler = None


class Output(Options):
    """Options for files and printing."""

    bank: BankOut
    chunk_rows: Annotated[
        int | None,
        option(
            OUTPUT,
            "--chunk-rows",
            min=1,
            help="Rows a chunk of a new bank: the unit of commit and resume.",
        ),
    ] = None
    certify: Annotated[
        bool,
        option(
            OUTPUT,
            "--certify",
            help="Measure the run against Pillow and the plain model in fp32; kept in the bank.",
        ),
    ] = False
    json: Json = False


def embed(manifest: ManifestPath, what: What, protocol: Protocol, machine: Machine, output: Output) -> None:
    """Embed every image with every model. Run it again to resume; finished rows are never computed twice.

    Repeat --model for several models in one pass; then give one --weights or --name for each of them, in the
    same order, or name the model by SLUG=. Nothing starts if a larger share of the images than --max-failed
    is missing. --seed applies to random/NAME weights.
    """
    from engine.report import console
    from engine.report.embed_text import print_embed

    options = _options(what, protocol, machine, output)
    names = by_model("--name", "name", what.name or [], what.model)
    specs = _specs(what, protocol.seed)
    images = read_manifest(manifest, what.root, what.allow_outside)
    reports = _run(images, specs, names, options, protocol, machine, output)
    results = [report.to_dict() for report in reports]
    if output.certify:
        _certify(results, images, specs, options, protocol, machine, output)
    show(one_or_all(results), output.json, lambda: print_embed(results))
    for note in dict.fromkeys(note for result in results for note in result["notes"]):
        console.say(f"{note}.")
    share = protocol.max_failed
    failed = any(result["failed"] + result["pending"] > share * result["rows"] for result in results)
    if failed:
        console.say(
            f"More than {share:.1%} of the rows failed or are not embedded; "
            f"`embank bank show {output.bank} --failures` lists them."
        )
    end_with_failures(failed)


def _options(what: What, protocol: Protocol, machine: Machine, output: Output) -> "EmbedOptions":
    from engine.decode.source import Limits
    from engine.embed.options import EmbedOptions

    return EmbedOptions(
        decoder=machine.decoder,
        dct=protocol.dct,
        dtype=protocol.dtype,
        batch_size=machine.batch_size,
        chunk_rows=output.chunk_rows,
        limits=Limits(max_pixels=protocol.max_pixels),
        allow_outside=what.allow_outside,
    )


def _specs(what: What, seed: int) -> "list[ModelSpec]":
    """Resolve the models with their weights and preprocessing."""
    specs = _resolve(what.model, what.weights or [], what.recipe, seed)
    if what.depth is not None:
        specs = [replace(spec, recipe=spec.recipe.showing(what.depth)) for spec in specs]
    if what.deep:
        specs = [replace(spec, recipe=replace(spec.recipe, deep=tuple(what.deep))) for spec in specs]
    return specs


def _resolve(slugs: list[str], weights: list[str], recipe: str | None, seed: int) -> "list[ModelSpec]":
    from engine.models import resolve
    from engine.recipes import load_recipe

    words = by_model("--weights", "file", weights, slugs)
    if len(set(slugs)) != len(slugs):
        raise Refused(
            f"models {slugs}", "Each model is named once", "drop the repetition, or embed in two commands"
        )
    override: Recipe | None = load_recipe(recipe) if recipe else None
    files = [Path(word) if word else None for word in words]
    return [resolve(s, weights=w, recipe=override, seed=seed) for s, w in zip(slugs, files, strict=True)]


def _run(
    images: "Manifest",
    specs: "list[ModelSpec]",
    names: list[str | None],
    options: "EmbedOptions",
    protocol: Protocol,
    machine: Machine,
    output: Output,
) -> "list[EmbedReport]":
    """Embed, in this process or in the workers."""
    from engine.embed.run import embed as run
    from engine.report import console
    from engine.runtime import Runtime

    with terminable(), executor_of(machine.workers, machine.scheduler, machine.device) as executor:
        threads = machine.threads or threads_of_each(machine.workers)
        settings = (machine.device, machine.precision, threads, protocol.seed, machine.compile)
        runtime = executor.ask(Runtime.resolve, *settings)
        with console.embed_progress(quiet=False) as update:
            return run(
                images,
                specs,
                output.bank,
                runtime=runtime,
                options=options,
                checks=protocol.checks(),
                executor=executor,
                on_progress=update,
                names=names,
            )


def _certify(
    results: "list[EmbedReportJson]",
    images: "Manifest",
    specs: "list[ModelSpec]",
    options: "EmbedOptions",
    protocol: Protocol,
    machine: Machine,
    output: Output,
) -> None:
    """Add to each result how far it is from Pillow and the plain model in fp32, computed by this process."""
    from engine.embed.certify import certify
    from engine.runtime import Runtime

    settings = (machine.device, machine.precision, machine.threads, protocol.seed, machine.compile)
    here = Runtime.resolve(*settings)
    for spec, result in zip(specs, results, strict=True):
        result["certificate"] = certify(
            images, spec, output.bank, runtime=here, options=options, feature=result["feature"]
        )
