"""`embank invariance`: how alike features stay."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from engine.commands.all_models import models_of, refuse_weights_of_several
from engine.commands.checking import check_output
from engine.commands.choices import BatchNorm, Mode, Products
from engine.commands.declaring import OUTPUT, PROTOCOL, WHAT, Options, option
from engine.commands.options import (
    BankPath,
    BankWeights,
    BatchNormOption,
    Device,
    Force,
    ImagesScored,
    Json,
    MaybeFile,
    Models,
    ModeOption,
    Root,
    Seed,
)
from engine.commands.processes import terminable
from engine.commands.showing import noting, one_or_all, say_undone, show
from stores.errors import Refused

if TYPE_CHECKING:
    from engine.evals.invariance.result import Invariance
    from stores.bank.records import Batch
    from stores.json_types import JsonObject


class What(Options):
    """Options for images and comparisons."""

    model: Models
    transform: Annotated[
        list[str] | None,
        option(WHAT, metavar="NAME ...", help="One of the study's 18, or all."),
    ] = None
    images: ImagesScored = None
    multi_view: Annotated[
        bool,
        option(WHAT, "--multi-view", help="Compare two views of a study instead; opens no image."),
    ] = False
    pair: Annotated[
        str | None,
        option(
            WHAT,
            metavar="FIRST,SECOND",
            help="With --multi-view: two values of the column view.",
            show_default="the only two",
        ),
    ] = None
    same_label: Annotated[
        bool, option(WHAT, "--same-label", help="With --multi-view: pairs of one label only.")
    ] = False
    weights: BankWeights = None
    root: Root = None


class Protocol(Options):
    """Options for the measurement."""

    views: Annotated[
        int, option(PROTOCOL, min=1, help="Views of each image, where a transform does not fix it.")
    ] = 256
    shrinkage: Annotated[
        str | None,
        option(
            PROTOCOL,
            metavar="RULE",
            help="Rule for the covariance: ledoit-wolf, ridge=VALUE, components=COUNT or none.",
            show_default="ledoit-wolf; ridge=1e-6 as-published",
        ),
    ] = None
    products: Annotated[Products, option(PROTOCOL, help="float32 is faster; the factor stays float64.")] = (
        Products.float64
    )
    mode: ModeOption = Mode.default
    batch_norm: BatchNormOption = BatchNorm.eval
    seed: Seed = 0

    def measure(self, images: int | None) -> dict[str, Any]:
        """Return the options that both measurements share; `regularisation` is still a text."""
        products = self.products.value
        return {"images": images, "regularisation": self.shrinkage, "arithmetic": products, "seed": self.seed}


class Output(Options):
    """Options for files and printing."""

    out: MaybeFile = None
    figure: Annotated[
        Path | None,
        option(OUTPUT, metavar="FILE", help="Draw cosines over the parameters here: .png, .svg or .pdf."),
    ] = None
    force: Force = False
    json: Json = False


def invariance(
    bank: BankPath, what: What, protocol: Protocol, output: Output, device: Device = "auto"
) -> None:
    """Measure how alike features stay under transforms. Run it again to resume; view features are kept.

    Repeat --transform for several, and --model, or give all. --mode as-published does as the study's code. -o
    takes a contact sheet of views of one model: .png, .svg or .pdf.
    """
    from engine.report.invariance_text import print_invariances
    from stores.bank.records import together
    from stores.outputs import refuse_twice

    for path in (output.out, output.figure):
        check_output(path, bank, "invariance", output.force, inputs=(what.weights,), root=what.root)
    refuse_twice(output.out, output.figure)
    _refuse_both(what, protocol, output)
    models = _models(bank, what, output)
    undone: list[Exception] = []
    with together() as batch:
        if what.multi_view:
            reports = [[_multi_view(bank, model, what, protocol, device)] for model in models]
        else:
            results = [_transformed(bank, model, what, protocol, device) for model in models]
            undone = _draw(results[0], batch, output)
            reports = [[result.report for result in own] for own in results]

    def text() -> None:
        for own in reports:
            print_invariances(own)

    show(one_or_all([report for own in reports for report in own]), output.json, text)
    say_undone(batch, undone)


def _models(bank: str, what: What, output: Output) -> list[str]:
    """Return the models, and refuse files that are of one for several."""
    models = models_of(bank, what.model)
    refuse_weights_of_several(what.weights, models)
    if len(models) > 1 and (output.out or output.figure):
        raise Refused(
            f"{'-o' if output.out else '--figure'} with {len(models)} models",
            "A picture of views is of one model",
            "leave it out, or run the command once for each model",
        )
    return models


def _refuse_both(what: What, protocol: Protocol, output: Output) -> None:
    """Refuse options of views together with those of pairs."""
    if not what.multi_view:
        if what.pair or what.same_label:
            raise Refused("--pair or --same-label", "They choose pairs", "add --multi-view")
        return
    options = (("--transform", what.transform), ("-o", output.out), ("--figure", output.figure))
    drawn = [name for name, given in options if given]
    if drawn or protocol.mode != Mode.default or protocol.batch_norm != BatchNorm.eval:
        raise Refused(
            f"--multi-view with {', '.join(drawn) or 'another mode'}",
            "It compares stored features and makes no views",
            "leave one of them out",
        )


def _multi_view(bank: str, model: str, what: What, protocol: Protocol, device: str) -> "JsonObject":
    from engine.evals.common.compute import evaluation_device
    from engine.evals.invariance.bank import multiview_from_bank
    from engine.evals.invariance.options import MultiViewOptions
    from engine.kernels.whitening import Regularisation

    names = tuple(what.pair.split(",")) if what.pair else None
    if names is not None and len(names) != 2:
        raise Refused(f"pair {what.pair!r}", "It is FIRST,SECOND", "name two values of the column view")
    asked = protocol.measure(what.images)
    asked["regularisation"] = Regularisation.parse(asked["regularisation"] or "ledoit-wolf")
    options = MultiViewOptions(pair=names, same_label=what.same_label, **asked)
    return multiview_from_bank(bank, model, options, device=evaluation_device(device))


def _transformed(bank: str, model: str, what: What, protocol: Protocol, device: str) -> "list[Invariance]":
    from engine.evals.invariance.bank import invariances_from_bank
    from engine.evals.invariance.options import InvarianceOptions
    from engine.kernels.transforms import TRANSFORMS
    from engine.kernels.whitening import Regularisation
    from engine.report import console

    every = what.transform == ["all"]
    asked = protocol.measure(what.images)
    text = asked["regularisation"]
    asked["regularisation"] = Regularisation.parse(text) if text else None
    options = InvarianceOptions(
        transforms=tuple(TRANSFORMS) if every else tuple(what.transform or ()),
        views=protocol.views,
        mode=protocol.mode.value,
        batch_norm=protocol.batch_norm.value,
        **asked,
    )
    with terminable(), console.embed_progress() as update:
        progress: Any = update
        return invariances_from_bank(
            bank,
            model,
            options,
            weights=what.weights,
            root=what.root,
            device=device,
            on_progress=progress,
            skip_undefined=every,
        )


def _draw(results: "list[Invariance]", batch: "Batch", output: Output) -> list[Exception]:
    """Draw the sheet of views and the figure of the records, if asked. Returns why one could not be."""
    undone: list[Exception] = []
    if output.out:
        from engine.report.views import views_sheet

        with noting(undone):
            views_sheet(results, output.out)
    if output.figure:
        from engine.report.invariance_figure import invariance_figure

        with noting(undone):
            invariance_figure(batch.made, output.figure)
    return undone
