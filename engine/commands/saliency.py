"""`embank saliency`: occlusion maps."""

from typing import TYPE_CHECKING, Annotated

import typer

from engine.commands.all_models import models_of, refuse_weights_of_several
from engine.commands.choices import BatchNorm, Mode, Precision
from engine.commands.declaring import OUTPUT, PROTOCOL, Options, option
from engine.commands.options import (
    AllowOutside,
    BatchNormOption,
    Device,
    Force,
    Fp32OrBf16,
    ImageIds,
    ImagesOccluded,
    Json,
    MaxFailed,
    MaybeFolder,
    Models,
    ModeOption,
    RecipeWord,
    Root,
    Seed,
    Threads,
    Weights,
)
from engine.commands.processes import terminable
from engine.commands.showing import end_with_failures, noting, one_or_all, say_undone, show

if TYPE_CHECKING:
    from engine.evals.common.image_inputs import Images
    from engine.evals.saliency.options import SaliencyOptions
    from engine.evals.saliency.result import SaliencyMap
    from engine.report.overlays import Gallery
    from engine.runtime import Runtime
    from stores.json_types import JsonObject

BankOrManifest = Annotated[
    str, typer.Argument(metavar="BANK|MANIFEST", help="A bank's directory or URL, or a manifest.")
]


class What(Options):
    """Options for images and the model."""

    model: Models
    weights: Weights = None
    recipe: RecipeWord = None
    images: ImagesOccluded = None
    id: ImageIds = None
    root: Root = None
    allow_outside: AllowOutside = False


class Protocol(Options):
    """Options for the occlusion."""

    mode: ModeOption = Mode.default
    size: Annotated[int, option(PROTOCOL, min=1, help="Side of the square, pixels.")] = 10
    stride: Annotated[
        int | None,
        option(
            PROTOCOL,
            min=1,
            help="Step of the square, pixels; 1 is exact, and the study's.",
            show_default="8 on the CPU, where 1 takes hours; 1 on a GPU and as-published",
        ),
    ] = None
    fill: Annotated[
        str,
        option(
            PROTOCOL,
            metavar="COLOUR",
            help="0 (after normalisation), mean (the image's colour), or R,G,B.",
        ),
    ] = "0"
    batch_norm: BatchNormOption = BatchNorm.eval
    max_failed: MaxFailed = 0.01
    seed: Seed = 0

    def options(self, what: What) -> "SaliencyOptions":
        from engine.evals.saliency.options import SaliencyOptions

        return SaliencyOptions(
            mode=self.mode.value,
            size=self.size,
            stride=self.stride,
            fill=self.fill,
            batch_norm=self.batch_norm.value,
            images=what.images,
            ids=tuple(what.id or ()),
            seed=self.seed,
        )


class Machine(Options):
    """Options for the machine."""

    device: Device = "auto"
    precision: Fp32OrBf16 = Precision.fp32
    threads: Threads = None


class Output(Options):
    """Options for files and printing."""

    out: MaybeFolder = None
    shared_scale: Annotated[
        bool,
        option(OUTPUT, "--shared-scale", help="One colour scale for all overlays, so that they compare."),
    ] = False
    force: Force = False
    json: Json = False


def saliency(
    source: BankOrManifest, what: What, protocol: Protocol, machine: Machine, output: Output
) -> None:
    """Compute occlusion maps and attentive diffusion. Run it again to resume; finished maps are kept.

    Repeat --model for several models, or give all of a bank. Images are drawn by --seed, or named by --id,
    which may be repeated. --mode as-published uses one image and the study's settings. --precision bf16 is
    faster; its error is measured and recorded. -o takes the folder for overlays (PNG) and maps (npy), with a
    folder in it for each of several models; it is needed with a manifest.
    """
    from engine.report.saliency_text import print_saliency
    from engine.runtime import Runtime
    from stores.bank.records import together

    options = protocol.options(what)
    runtime = Runtime.resolve(machine.device, machine.precision.value, machine.threads, protocol.seed)
    every = _open(source, what, protocol, output)
    galleries = _galleries(every, options, runtime, output)
    undone: list[Exception] = []
    reports: list[JsonObject] = []
    with terminable(), together() as batch:
        for images, gallery in zip(every, galleries, strict=True):
            reports.append(_run(images, options, runtime, gallery, undone))

    def text() -> None:
        for report in reports:
            print_saliency(report)

    show(one_or_all(reports), output.json, text)
    say_undone(batch, undone)
    counts = [(int(str(report["failed"])), int(str(report["images"]))) for report in reports]
    end_with_failures(any(failed > protocol.max_failed * images for failed, images in counts))


def _open(source: str, what: What, protocol: Protocol, output: Output) -> "list[Images]":
    from engine.evals.common.image_inputs import open_images
    from engine.recipes import load_recipe

    models = models_of(source, what.model)
    refuse_weights_of_several(what.weights, models)
    return [
        open_images(
            source,
            model,
            weights=what.weights,
            recipe=load_recipe(what.recipe) if what.recipe else None,
            seed=protocol.seed,
            root=what.root,
            allow_outside=what.allow_outside,
            home=output.out,
        )
        for model in models
    ]


def _galleries(
    every: "list[Images]", options: "SaliencyOptions", runtime: "Runtime", output: Output
) -> "list[Gallery | None]":
    """Return the folders of overlays, if requested, one for each model; refuse other files there."""
    if not output.out:
        return [None for _ in every]
    from engine.report.drawing import folder_for
    from engine.report.overlays import About, Gallery, refuse_other_files
    from stores.outputs import Images, check_folder

    check_folder(output.out)
    stride = options.on(runtime.on_cuda).stride or 1
    folders = [folder_for(output.out, images.title) if len(every) > 1 else output.out for images in every]
    for folder, images in zip(folders, every, strict=True):
        refuse_other_files(folder, Images.of(images.manifest), force=output.force)
    return [
        Gallery(folder, About(images.title, stride, options.size), shared=output.shared_scale)
        for folder, images in zip(folders, every, strict=True)
    ]


def _run(
    images: "Images",
    options: "SaliencyOptions",
    runtime: "Runtime",
    gallery: "Gallery | None",
    undone: list[Exception],
) -> "JsonObject":
    from engine.evals.saliency.bank import saliency as run
    from engine.report import saliency_progress

    def add(image: "SaliencyMap") -> None:
        with noting(undone):
            if gallery and not undone:
                gallery.add(image)

    with saliency_progress.show_progress() as update:
        report = run(
            images,
            options,
            runtime=runtime,
            on_progress=update,
            on_map=add,
            on_estimate=saliency_progress.say_estimate,
        )
    if gallery:
        with noting(undone):
            gallery.finish()
        report["files"] = [str(path) for path in gallery.files]
    return report
