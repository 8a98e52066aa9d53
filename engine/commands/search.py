"""`embank search`: the nearest images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from engine.commands.checking import check_output
from engine.commands.choices import Backend, Distance, Index
from engine.commands.declaring import PROTOCOL, WHAT, Options, option
from engine.commands.options import (
    BankPath,
    BankWeights,
    Device,
    Force,
    ImageId,
    Json,
    MaybeFile,
    NeighbourBackend,
    NeighbourDistance,
    Neighbours,
    OneModel,
    Root,
)
from engine.commands.showing import noting, say_undone, show

if TYPE_CHECKING:
    from engine.decode.source import ImageSource
    from engine.evals.neighbours.search import SearchResult


class What(Options):
    """Options for the query."""

    model: OneModel
    image: Annotated[Path | None, option(WHAT, metavar="FILE", help="An image file to search with.")] = None
    id: ImageId = None
    weights: BankWeights = None
    root: Root = None


class Protocol(Options):
    """Options for distances and neighbours."""

    k: Neighbours = 10
    keep_query: Annotated[
        bool,
        option(PROTOCOL, "--keep-query", help="Also list the query, if it is an image of the bank."),
    ] = False
    distance: NeighbourDistance = Distance.cosine
    index: Annotated[
        Index,
        option(PROTOCOL, help="ivf and cagra are approximate; their recall is measured and printed."),
    ] = Index.exact


class Machine(Options):
    """Options for the machine."""

    backend: NeighbourBackend = Backend.auto
    device: Device = "auto"


class Output(Options):
    """Options for files and printing."""

    out: MaybeFile = None
    force: Force = False
    json: Json = False


def search(bank: BankPath, what: What, protocol: Protocol, machine: Machine, output: Output) -> None:
    """Find the images of a bank nearest to one of them, or to an image file.

    --id or --image says which. -o takes a contact sheet: .png, .svg or .pdf.
    """
    from engine.report.search_text import print_search
    from stores.bank.records import together

    out = output.out
    check_output(out, bank, "search", output.force, inputs=(what.image, what.weights))
    pictures = None
    if out:
        from engine.report.sheets import pictures_of

        pictures = pictures_of(bank, what.model, root=what.root)
    undone: list[Exception] = []
    drawn: dict[str, Any] = {}
    with together() as batch:
        result = _search(bank, what, protocol, machine)
        if out and pictures is not None:
            with noting(undone):
                drawn = _sheet(pictures, result, out, what.image)
    report = {**result.report, **drawn}
    show(report, output.json, lambda: print_search(report, result.found, what.image or what.id))
    say_undone(batch, undone)


def _search(bank: str, what: What, protocol: Protocol, machine: Machine) -> "SearchResult":
    from engine.evals.neighbours.search import search as run

    distance: Any = protocol.distance.value  # a word that the option accepts here
    return run(
        bank,
        what.model,
        image=what.image,
        image_id=what.id,
        k=protocol.k,
        distance=distance,
        index=protocol.index.value,
        backend=machine.backend.value,
        weights=what.weights,
        device=machine.device,
        keep_query=protocol.keep_query,
    )


def _sheet(pictures: "ImageSource", result: "SearchResult", out: Path, image: Path | None) -> dict[str, Any]:
    from engine.report.sheets import search_sheet

    return {"unreadable": search_sheet(pictures, result, out, image=image), "sheet": out}
