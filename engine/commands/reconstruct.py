"""`embank reconstruct`: what a feature map still holds of an image."""

from typing import TYPE_CHECKING, Annotated

from engine.commands.all_models import models_of, refuse_weights_of_several
from engine.commands.choices import Mode, Precision
from engine.commands.declaring import PROTOCOL, Options, option
from engine.commands.options import (
    AutoFp32OrBf16,
    BankPath,
    BankWeights,
    Device,
    Force,
    ImageIds,
    ImagesReconstructed,
    Json,
    LearningRate,
    MaxFailed,
    MaybeFolder,
    Models,
    ModeOption,
    Root,
    Seed,
    Steps,
    Threads,
)
from engine.commands.processes import terminable
from engine.commands.showing import end_with_failures, noting, one_or_all, say_undone, show

if TYPE_CHECKING:
    from engine.evals.common.image_inputs import Images
    from engine.evals.reconstruction.options import ReconstructionOptions
    from engine.evals.reconstruction.result import Reconstruction
    from engine.report.reconstruct_gallery import Gallery
    from engine.runtime import Runtime
    from stores.json_types import JsonObject


class What(Options):
    """Options for images and models."""

    model: Models
    images: ImagesReconstructed = None
    id: ImageIds = None
    weights: BankWeights = None
    root: Root = None


class Protocol(Options):
    """Options for the networks."""

    mode: ModeOption = Mode.default
    steps: Steps = 3000
    seeds: Annotated[
        int | None,
        option(
            PROTOCOL,
            "--seeds",
            min=1,
            help="Networks for each image, whose results differ.",
            show_default="3; 1 as-published",
        ),
    ] = None
    lr: LearningRate = 1e-3
    max_failed: MaxFailed = 0.01
    seed: Seed = 0

    def options(self, what: What) -> "ReconstructionOptions":
        from engine.evals.reconstruction.options import ReconstructionOptions

        return ReconstructionOptions(
            mode=self.mode.value,
            images=what.images,
            ids=tuple(what.id or ()),
            steps=self.steps,
            seeds=self.seeds,
            lr=self.lr,
            seed=self.seed,
        )


class Machine(Options):
    """Options for the machine."""

    device: Device = "auto"
    precision: AutoFp32OrBf16 = Precision.auto
    threads: Threads = None


class Output(Options):
    """Options for files and printing."""

    out: MaybeFolder = None
    force: Force = False
    json: Json = False


def reconstruct(bank: BankPath, what: What, protocol: Protocol, machine: Machine, output: Output) -> None:
    """Reconstruct images from a model's last feature map. Run it again to resume; what is done is kept.

    Untrained networks are optimised until the feature map of their output is that of the image. Repeat
    --model for several models, or give all. Images are drawn by --seed, or named by --id, which may be
    repeated. --mode as-published feeds values of 0-1 to every model, one network an image. -o takes the
    folder for reconstructions, with a gallery beside the originals.
    """
    from engine.report.reconstruct_text import print_reconstructions
    from stores.bank.records import together

    options = protocol.options(what)
    runtime = _runtime(machine, protocol)
    every = _open(bank, what, protocol)
    galleries = _galleries(every, options, output)
    undone: list[Exception] = []
    reports: list[JsonObject] = []
    with terminable(), together() as batch:
        for images, gallery in zip(every, galleries, strict=True):
            reports.append(_run(images, options, runtime, gallery, undone))
    show(one_or_all(reports), output.json, lambda: print_reconstructions(reports))
    say_undone(batch, undone)
    images_of_all = sum(int(str(report["images"])) for report in reports)
    failed = sum(int(str(report["failed"])) for report in reports)
    end_with_failures(failed > protocol.max_failed * images_of_all)


def _runtime(machine: Machine, protocol: Protocol) -> "Runtime":
    """Resolve the machine; `auto` is bf16 where that is fast, float32 elsewhere and as published."""
    from engine.runtime import Runtime, fast_bfloat16

    precision = machine.precision.value
    if precision == "auto":
        plain = Runtime.resolve(machine.device, "fp32", machine.threads, protocol.seed)
        mixed = plain.on_cuda and protocol.mode is Mode.default and fast_bfloat16(plain.device)
        precision = "bf16" if mixed else "fp32"
    return Runtime.resolve(machine.device, precision, machine.threads, protocol.seed)


def _open(bank: str, what: What, protocol: Protocol) -> "list[Images]":
    from engine.evals.common.image_inputs import open_images

    names = models_of(bank, list(dict.fromkeys(what.model)))
    refuse_weights_of_several(what.weights, names)
    return [
        open_images(bank, name, weights=what.weights, seed=protocol.seed, root=what.root) for name in names
    ]


def _galleries(
    every: "list[Images]", options: "ReconstructionOptions", output: Output
) -> "list[Gallery | None]":
    """Return the folders of pictures, if requested, one for each model; refuse other files there."""
    if not output.out:
        return [None for _ in every]
    from engine.report.drawing import folder_for
    from engine.report.reconstruct_gallery import About, Gallery, refuse_other_files
    from stores.outputs import Images, check_folder

    check_folder(output.out)
    titles = [images.title for images in every]
    folders = [folder_for(output.out, title) if len(every) > 1 else output.out for title in titles]
    for folder, images in zip(folders, every, strict=True):
        refuse_other_files(folder, Images.of(images.manifest), force=output.force)
    return [
        Gallery(folder, About(title, options.mode, options.updates))
        for folder, title in zip(folders, titles, strict=True)
    ]


def _run(
    images: "Images",
    options: "ReconstructionOptions",
    runtime: "Runtime",
    gallery: "Gallery | None",
    undone: list[Exception],
) -> "JsonObject":
    from engine.evals.reconstruction.bank import reconstruct as run
    from engine.evals.reconstruction.evaluate import Hooks
    from engine.report import reconstruct_progress

    def add(made: "Reconstruction") -> None:
        with noting(undone):
            if gallery and not undone:
                gallery.add(made)

    with reconstruct_progress.show_progress() as update:
        hooks = Hooks(update, add, reconstruct_progress.say_estimate)
        report = run(images, options, runtime=runtime, hooks=hooks)
    if gallery:
        with noting(undone):
            gallery.finish()
        files: list[str] = [str(path) for path in gallery.files]
        report["files"] = list(files)
    return report
