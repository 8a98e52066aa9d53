"""`embank knn`: classification by nearest neighbours."""

from typing import TYPE_CHECKING, Annotated, Any

from engine.commands.all_models import models_of
from engine.commands.choices import Backend, Distance, Votes
from engine.commands.declaring import PROTOCOL, Options, option
from engine.commands.options import (
    BankPath,
    Controls,
    Device,
    GroupDisjoint,
    Json,
    Models,
    NeighbourBackend,
    NeighbourDistance,
    NeighboursTried,
    TestSplit,
    TrainSplit,
)
from engine.commands.showing import one_or_all, say_undone, show

if TYPE_CHECKING:
    from engine.evals.neighbours.knn import KnnOptions


class What(Options):
    """Options for the images that vote, and those classified."""

    model: Models
    train_split: TrainSplit = "train"
    test_split: TestSplit = "test"


class Protocol(Options):
    """Options for neighbours and votes."""

    k: NeighboursTried = None
    distance: NeighbourDistance = Distance.cosine
    weights: Annotated[
        Votes | None,
        option(
            PROTOCOL,
            help="Weights of the votes.",
            show_default="temperature for cosine, uniform for euclidean",
        ),
    ] = None
    temperature: Annotated[float, option(PROTOCOL, help="T of the weights exp(similarity / T).")] = 0.07
    leave_one_out: Annotated[
        bool, option(PROTOCOL, "--leave-one-out", help="Classify every image by all others.")
    ] = False
    group_disjoint: GroupDisjoint = None
    controls: Controls = False


def knn(
    bank: BankPath,
    what: What,
    protocol: Protocol,
    backend: NeighbourBackend = Backend.auto,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Classify by nearest neighbours: accuracy, balanced accuracy and AUROC, from the bank alone.

    The images of the train split vote. Repeat --model for several models, or give all, and -k for several
    numbers of neighbours, of which the first is the headline.
    """
    from engine.evals.neighbours.knn import knn_from_bank
    from engine.report import console
    from engine.report.controls_text import print_controls
    from engine.report.evaluation_text import print_notes
    from engine.report.knn_text import print_knn
    from stores.bank.records import together

    options = _options(protocol, backend, device)
    parts = {"train_split": what.train_split, "test_split": what.test_split}
    more: Any = {**parts, "leave_one_out": protocol.leave_one_out, "controls": protocol.controls}
    models = models_of(bank, what.model)
    with together() as batch, console.probe_progress() as progress:
        results = [knn_from_bank(bank, m, options, **more, progress=progress(m)) for m in models]

    def text() -> None:
        for result in results:
            print_knn(result)
        print_notes(results)
        print_controls(results)

    show(one_or_all(results), json, text)
    say_undone(batch)


def _options(protocol: Protocol, backend: Backend, device: str) -> "KnnOptions":
    from engine.evals.common.compute import evaluation_device
    from engine.evals.neighbours.knn import KnnOptions
    from engine.runtime import usable_cores

    distance: Any = protocol.distance.value  # a word that the option accepts here
    return KnnOptions(
        k=tuple(protocol.k or ()),
        distance=distance,
        weights=protocol.weights.value if protocol.weights else None,
        temperature=protocol.temperature,
        group_disjoint=protocol.group_disjoint,
        backend=backend.value,
        device=evaluation_device(device),
        threads=usable_cores(),
    )
