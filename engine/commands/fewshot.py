"""`embank fewshot`: episodes of prototypes."""

import os
from typing import TYPE_CHECKING, Annotated

from engine.commands.all_models import models_of
from engine.commands.choices import Backend, Distance, Mode
from engine.commands.declaring import PROTOCOL, WHAT, Options, option
from engine.commands.options import (
    BankPath,
    Bootstrap,
    Controls,
    Device,
    GroupDisjoint,
    Json,
    Models,
    ModeOption,
    NeighbourBackend,
    PrototypeDistance,
    Seed,
    Split,
)
from engine.commands.showing import one_or_all, say_undone, show
from stores.errors import Refused

if TYPE_CHECKING:
    from engine.evals.fewshot.evaluate import Protocol as FewShotProtocol


class What(Options):
    """Options for images and features."""

    model: Models
    split: Split = None
    cap: Annotated[int | None, option(WHAT, help="Most images of a class.", show_default="all")] = None


class Protocol(Options):
    """Options for episodes."""

    n_way: Annotated[
        int | None,
        option(PROTOCOL, "--n-way", help="Classes an episode.", show_default="5, or all if they are fewer"),
    ] = None
    n_shot: Annotated[int, option(PROTOCOL, "--n-shot", help="Support images a class.")] = 20
    n_query: Annotated[int, option(PROTOCOL, "--n-query", help="Query images a class.")] = 15
    episodes: Annotated[int, option(PROTOCOL, help="Episodes drawn.")] = 600
    seed: Seed = 0
    distance: PrototypeDistance = Distance.sqeuclidean
    mode: ModeOption = Mode.default
    group_disjoint: GroupDisjoint = None
    patient_disjoint: Annotated[
        bool, option(PROTOCOL, "--patient-disjoint", hidden=True, help="Old name of --group-disjoint.")
    ] = False
    bootstrap: Bootstrap = 0
    controls: Controls = False

    def of_episodes(self, cap: int | None) -> "FewShotProtocol":
        from engine.evals.fewshot.evaluate import Protocol

        apart = self.group_disjoint
        if self.patient_disjoint:
            apart = _by_old_name(apart)
        return Protocol(
            self.n_way,
            self.n_shot,
            self.n_query,
            self.episodes,
            self.seed,
            self.distance.value,
            self.mode.value,
            apart,
            cap,
        )


def fewshot(
    bank: BankPath,
    what: What,
    protocol: Protocol,
    backend: NeighbourBackend = Backend.auto,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Measure prototype few-shot accuracy with 95 % intervals, from the bank alone; compare models in pairs.

    Repeat --model for several models, or give all. --mode as-published uses the study's pool of images and
    its interval. --device auto is the CPU, which has finished before a GPU would have started.
    """
    # Before numpy is imported: the kernel runs its own threads, each of which calls single-threaded products.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from engine.evals.fewshot.bank import fewshots_from_bank
    from engine.report import console
    from engine.report.fewshot_text import print_fewshot
    from stores.bank.records import together

    episodes = protocol.of_episodes(what.cap)
    with together() as batch, console.probe_progress() as progress:
        results = fewshots_from_bank(
            bank,
            models_of(bank, what.model),
            episodes,
            split=what.split,
            backend=backend.value,
            device=device,
            bootstrap=protocol.bootstrap,
            controls=protocol.controls,
            progress=progress,
        )
    show(one_or_all(results), json, lambda: print_fewshot(results))
    say_undone(batch)


def _by_old_name(value: bool | None) -> bool:
    """Apply --patient-disjoint, which is accepted for one more release."""
    from engine.report import console

    if value is False:
        raise Refused(
            "--patient-disjoint with --no-group-disjoint", "One says the opposite", "drop one of them"
        )
    console.say(
        "--patient-disjoint is now called --group-disjoint; the old name will go with the next release."
    )
    return True
