"""The run of a study: whatever is missing of its cells, bank by bank, and then the comparisons.

A run may be stopped at any moment. A cell's record is written in one step as soon as it is computed,
embedding commits chunks, and long evaluations keep their own checkpoints; the next run goes on there.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.executors import SERIAL, Executor
from engine.study import failures, folder
from engine.study.attempts import attempt
from engine.study.cells import COMPARE, cells_of, compared_cells
from engine.study.comparing import compare_cell
from engine.study.embedding import Embedding
from engine.study.evaluating import Machine, evaluated
from engine.study.failures import Failure
from engine.study.feasible import Why, impossible
from engine.study.features import Supply
from engine.study.folder import Note
from engine.study.image_sets import ImageSet, bank_of, image_set_of, refuse_own_files
from engine.study.kinds import KINDS_BY_NAME
from engine.study.ledger import Ledger
from engine.study.locking import only_run
from engine.study.progress import Hooks, note_nothing, note_running
from engine.study.study import Cell, Study
from stores.bank.records import RunRecord
from stores.errors import BankError, EmbankError


@dataclass(frozen=True)
class StudyOutcome:
    """What a run has left behind.

    Attributes:
        directory: of the study.
        cells: that the study has.
        made: cells that this run has made.
        failures: of the cells that have no result, in the order of the study.
        impossible: digest of a cell that its data set cannot have -> why; of those not done before.
        seconds: of this run.
    """

    directory: Path
    cells: int
    made: int
    failures: tuple[Failure, ...]
    impossible: Mapping[str, Why]
    seconds: float

    @property
    def done(self) -> int:
        """Cells that have a result."""
        return self.cells - len(self.failures) - len(self.impossible)


def run_study(
    study: Study,
    directory: Path,
    *,
    file: Path,
    machine: Machine | None = None,
    executor: Executor = SERIAL,
    hooks: Hooks | None = None,
) -> StudyOutcome:
    """Make what is missing of a study: manifests, banks, cells, comparisons.

    A cell that fails does not stop the others. What has been made is not made again; a run without anything
    to do takes the time of reading the records.

    Args:
        directory: of the study; made if absent.
        file: that the study was read from; a copy is kept.
        machine: device, precision and threads.
        executor: who embeds and evaluates: this process, or worker processes, which must see the folder, the
            images and the weights at the same paths.
        hooks: called as it goes.

    Raises:
        Refused: a folder that is not this study's, or in which another run is at work; nothing was changed.
        MachineFault: a full disk, a lost device; finished cells are kept.
    """
    refuse_own_files(study, directory)
    folder.check(directory, study)
    folder.make(directory)
    with only_run(directory):
        note = folder.prepare(directory, study, file)
        run = _Run(study, directory, machine or Machine(), executor, hooks or Hooks(), note)
        try:
            return run.run()
        finally:
            note_nothing(directory)


@dataclass(frozen=True)
class _Place:
    """A bank of the study, and the cells whose records it keeps."""

    images: ImageSet
    bank: Path
    cells: tuple[Cell, ...]


class _Run:
    """One run: what it works with, and what has come of it so far."""

    def __init__(
        self, study: Study, directory: Path, machine: Machine, executor: Executor, hooks: Hooks, note: Note
    ) -> None:
        self.study, self.directory = study, directory
        self.machine, self.executor, self.hooks = machine, executor, hooks
        embedding = Embedding(study.embed, machine, executor, hooks.on_embed)
        self.supply = Supply(study, directory, embedding, note, self._work)
        self.cells = cells_of(study)
        self.places = list(_places(study, directory, self.cells))
        self.made = 0
        self.impossible: dict[str, Why] = {}
        self.failed: dict[str, Failure] = {}

    def run(self) -> StudyOutcome:
        """Go through the banks; the cells of one are done before those of the next."""
        started = time.monotonic()
        for place in self.places:
            if self.supply.changed(place.images) or self._pending(place):
                self._make(place)
        failures.forget_others(self.directory, self.failed)
        return StudyOutcome(
            self.directory,
            len(self.cells),
            self.made,
            tuple(self.failed[cell.digest] for cell in self.cells if cell.digest in self.failed),
            self.impossible,
            time.monotonic() - started,
        )

    def _pending(self, place: _Place) -> list[Cell]:
        """Return the cells of a bank that are not done; all of them where there is no bank yet."""
        ledger = Ledger.if_there(place.bank)
        if ledger is None:
            return list(place.cells)
        return [cell for cell in place.cells if ledger.record(cell, self._compared(cell)) is None]

    def _compared(self, cell: Cell) -> tuple[Cell, ...]:
        return compared_cells(cell, self.cells) if cell.kind == COMPARE else ()

    def _make(self, place: _Place) -> None:
        """Make the cells of a bank: its manifest, its features, evaluations, and then comparisons.

        Where manifest or study file have changed since its features were made, cells that are done fail as
        well unless these are still the features that are asked for.
        """
        changed, cells = self.supply.changed(place.images), self._pending(place)
        error = attempt(self.supply.manifest, place.images)
        if error is not None:
            for cell in cells:
                self._fail(cell, error)
            return
        own = {cell.digest for cell in cells}
        whys = impossible(self.study, self.directory, place.cells)
        self.impossible |= {digest: why for digest, why in whys.items() if digest in own}
        named = place.cells if changed else cells
        alone = [cell for cell in named if cell.kind != COMPARE and cell.digest not in self.impossible]
        able = self._embed(place, sorted(alone, key=self._turn))
        self._evaluate(place.bank, [cell for cell in able if cell.digest in own])
        # Again, because new records put comparisons out of date.
        still = [cell for cell in self._pending(place) if cell.kind == COMPARE]
        self._compare(place, [cell for cell in still if cell.digest not in self.impossible])

    def _turn(self, cell: Cell) -> tuple[bool, int]:
        """Return when a cell's turn is: first what needs no image, then model by model."""
        opens = KINDS_BY_NAME[cell.kind].opens_images
        names = [model.name for model in self.study.models]
        return opens, names.index(cell.model) if opens else 0

    def _embed(self, place: _Place, cells: Sequence[Cell]) -> list[Cell]:
        """See that the bank has the features of cells; returns the cells whose features are there."""
        named = {cell.model for cell in cells}
        models = [model for model in self.study.models if model.name in named]
        errors = self.supply.provide(place.images, models) if models else {}
        for cell in cells:
            if cell.model in errors:
                self._fail(cell, errors[cell.model])
        return [cell for cell in cells if cell.model not in errors]

    def _evaluate(self, bank: Path, cells: Sequence[Cell]) -> None:
        """Evaluate cells in order, or spread over workers; each record is kept as soon as it is there."""
        waiting = list(cells)
        abreast = max(1, self.executor.workers)
        elsewhere = self.executor.workers > 0
        where, more = (bank.absolute(), ()) if elsewhere else (bank, (self.hooks.on_detail,))
        tasks = [(where, cell, self.machine, *more) for cell in cells]
        self._now(waiting[:abreast])
        for position, outcome in self.executor.run(evaluated, tasks):
            waiting.remove(cells[position])
            self._end(bank, cells[position], outcome)
            self._now(waiting[:abreast])

    def _compare(self, place: _Place, cells: Sequence[Cell]) -> None:
        """Compare models, by the records that are there now."""
        for cell in cells:
            self._now([cell])
            ledger, own = Ledger.if_there(place.bank), self._compared(cell)
            self._end(place.bank, cell, attempt(compare_cell, ledger, cell, own, self.machine.threads))

    def _end(self, bank: Path, cell: Cell, outcome: RunRecord | EmbankError) -> None:
        """Keep the record of a cell, or why it has none. Raises MachineFault: it cannot be written."""
        if isinstance(outcome, EmbankError):
            self._fail(cell, outcome)
            return
        try:
            outcome.write(bank)
        except BankError as error:
            self._fail(cell, error)
            return
        failures.forget(self.directory, cell)
        self.made += 1
        self.hooks.on_state(cell, "done")

    def _fail(self, cell: Cell, error: EmbankError) -> None:
        self.failed[cell.digest] = failure = Failure.of(cell, error)
        failures.keep(self.directory, failure)
        self.hooks.on_state(cell, "failed")

    def _now(self, cells: Sequence[Cell]) -> None:
        """Say which cells are being made, to this process and to others."""
        note_running(self.directory, cells)
        for cell in cells:
            self.hooks.on_state(cell, "running")

    def _work(self, what: str) -> None:
        """Say that something is done that is no cell."""
        note_running(self.directory, [], what)
        self.hooks.on_work(what)


def _places(study: Study, directory: Path, cells: Sequence[Cell]) -> Iterator[_Place]:
    """Group cells by the bank that keeps their records."""
    own: dict[Path, list[Cell]] = {}
    for cell in cells:
        own.setdefault(bank_of(directory, study, cell), []).append(cell)
    for bank, of_bank in own.items():
        yield _Place(image_set_of(study, of_bank[0]), bank, tuple(of_bank))
