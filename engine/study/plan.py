"""What a run of a study has to do: the state of every cell, decode passes, time and disk."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from engine.study.cells import COMPARE
from engine.study.estimate import (
    MACHINE,
    Estimate,
    Rates,
    cell_estimate,
    forward_seconds,
    rates_of,
    table_seconds,
)
from engine.study.feasible import Why
from engine.study.image_sets import images_by_cell, refuse_own_files
from engine.study.kinds import KINDS_BY_NAME
from engine.study.ledger import Ledger
from engine.study.passes import EmbedPass, Images, embed_passes, images_of
from engine.study.progress import State
from engine.study.status import CellStatus, states_of
from engine.study.study import Cell, Study
from engine.study.supplies import blocked_by_images, blocked_by_weights, lpips_lacks
from stores.bank.record_index import RecordEntry
from stores.json_types import JsonObject


@dataclass(frozen=True)
class PlannedCell:
    """A cell with its state, and what it will take.

    Attributes:
        cell: the cell.
        state: `done`, `missing`, `impossible`, `failed` or `running`.
        reason: why it is impossible, why it failed last time, or what it lacks; "" for nothing.
        remedy: what to do; "" where there is no reason.
        seconds: estimate of what it takes; 0 for cells that are done or impossible.
        measured: whether the estimate is by rates of this study's own records.
        lacks: whether data or weights have to be fetched first.
    """

    cell: Cell
    state: State
    reason: str = ""
    remedy: str = ""
    seconds: float = 0.0
    measured: bool = False
    lacks: bool = False

    @property
    def why(self) -> str:
        """Why it cannot be made and what to do, in one line."""
        return f"{self.reason}. Remedy: {self.remedy}."

    def to_dict(self) -> JsonObject:
        """Return all fields, the cell's as well but for its options."""
        cell = self.cell
        return {
            "dataset": cell.dataset,
            "model": cell.model,
            "evaluation": cell.evaluation,
            "kind": cell.kind,
            "mode": cell.mode,
            "seed": cell.seed,
            "part": cell.part,
            "cell": cell.digest,
            "state": self.state,
            "reason": self.reason,
            "remedy": self.remedy,
            "seconds": self.seconds,
            "measured": self.measured,
            "lacks": self.lacks,
        }


@dataclass(frozen=True)
class Plan:
    """The plan of a study.

    Attributes:
        study: what is planned; directory: where.
        cells: all, in the order of the study.
        passes: of embedding, in the order in which they run.
        to_fetch: what data sets and models lack, each once.
        notes: remarks for the reader.
    """

    study: Study
    directory: Path
    cells: tuple[PlannedCell, ...]
    passes: tuple[EmbedPass, ...]
    to_fetch: tuple[Why, ...] = ()
    notes: tuple[str, ...] = ()

    def count(self, state: State) -> int:
        """Return how many cells are in a state."""
        return sum(planned.state == state for planned in self.cells)

    @cached_property
    def todo(self) -> tuple[PlannedCell, ...]:
        """Cells that a run tries now: missing or failed, with all that they need."""
        return tuple(one for one in self.cells if one.state in ("missing", "failed") and not one.lacks)

    @property
    def lacking(self) -> tuple[PlannedCell, ...]:
        """Cells whose data or weights have to be fetched first."""
        return tuple(one for one in self.cells if one.lacks)

    def seconds(self, everything: bool = False) -> float:
        """Return an estimate of what a run takes: embedding, and the cells that it tries.

        Args:
            everything: count what lacks data or weights as well.
        """
        passes = sum(one.seconds for one in self.passes if everything or not one.reason)
        cells = (one for one in self.cells if one.state in ("missing", "failed"))
        return passes + sum(one.seconds for one in cells if everything or not one.lacks)

    def bytes(self, everything: bool = False) -> int:
        """Return the bytes that embedding adds to the disk; `everything` as for `seconds`."""
        return sum(one.bytes for one in self.passes if everything or not one.reason)

    @property
    def measured(self) -> bool:
        """Whether all of the estimate is by rates of this study's own records."""
        passes = (one.measured for one in self.passes if not one.reason)
        return all((*passes, *(one.measured for one in self.todo)))

    def to_dict(self) -> JsonObject:
        """Return `{study, directory, totals, to_fetch, passes, cells, notes}`."""
        states: tuple[State, ...] = ("done", "missing", "failed", "running", "impossible")
        return {
            "study": self.study.name,
            "directory": str(self.directory),
            "totals": {
                "cells": len(self.cells),
                **{state: self.count(state) for state in states},
                "lacking": len(self.lacking),
                "seconds": self.seconds(),
                "bytes": self.bytes(),
                "seconds_of_all": self.seconds(everything=True),
                "bytes_of_all": self.bytes(everything=True),
                "measured": self.measured,
            },
            "to_fetch": [{"reason": why.reason, "remedy": why.remedy} for why in self.to_fetch],
            "passes": [one.to_dict() for one in self.passes],
            "cells": [one.to_dict() for one in self.cells],
            "notes": list(self.notes),
        }


def plan(study: Study, directory: Path) -> Plan:
    """Plan a study: what is there, what must be made, how long it takes and how much disk.

    Reads the records of the study's banks once, and neither embeddings nor images. Changes nothing.

    Args:
        study: as read.
        directory: of its results, perhaps absent.

    Raises:
        Refused: a data set is read from what the study makes. BankError: a bank is damaged.
        MachineFault: I/O error.
    """
    refuse_own_files(study, directory)
    ledgers: dict[Path, Ledger | None] = {}
    states = states_of(study, directory, ledgers)
    planner = _Planner(study, states, images_of(study, directory, ledgers))
    cells = tuple(planner.cell(status) for status in states)
    passes = embed_passes(study, planner.images, planner.rates, planner.no_images, planner.no_weights)
    return Plan(study, directory, cells, passes, planner.to_fetch(cells), tuple(planner.notes(cells, passes)))


class _Planner:
    """What is known of a study's banks, images and models while it is planned."""

    def __init__(self, study: Study, states: Sequence[CellStatus], images: dict[str, Images]) -> None:
        self.study, self.images = study, images
        own = images_by_cell(study, [status.cell for status in states])
        self.sets = {status.cell.digest: one.name for status, one in zip(states, own, strict=True)}
        self.no_images = {name: blocked_by_images(one) for name, one in images.items()}
        self.no_weights = {model.name: blocked_by_weights(model) for model in study.models}
        self.forward = {model.name: forward_seconds(model, self.side) for model in study.models}
        self.rates = self._rates(states)

    @property
    def side(self) -> int:
        """Side of the inputs in pixels."""
        side = self.study.embed.get("side")
        return side if isinstance(side, int) else 224

    def of(self, cell: Cell) -> Images:
        """Return the images of a cell."""
        return self.images[self.sets[cell.digest]]

    def table(self, cell: Cell) -> float:
        """Return the table's seconds of a cell."""
        return table_seconds(cell, self.of(cell).rows or 0, self.forward.get(cell.model, 0.0), self.side)

    def _rates(self, states: Iterable[CellStatus]) -> Rates:
        timed: list[tuple[Cell, RecordEntry, float]] = [
            (status.cell, status.entry, self.table(status.cell))
            for status in states
            if status.entry is not None
        ]
        embedded = (entry for one in self.images.values() for entry in one.embedded)
        return rates_of(embedded, timed, self.side)

    def cell(self, status: CellStatus) -> PlannedCell:
        """Plan one cell."""
        cell = status.cell
        if status.state == "done":
            return PlannedCell(cell, "done")
        if status.state == "impossible":
            return PlannedCell(cell, "impossible", status.reason, status.remedy)
        estimate: Estimate = cell_estimate(cell, self.table(cell), self.rates)
        why = self._lacks(cell)
        if status.state == "failed" and status.failure is not None:
            why_failed = Why(f"{status.failure.value}. {status.failure.rule}", status.failure.remedy)
            lacks, why = why is not None, why or why_failed
            return PlannedCell(cell, "failed", why.reason, why.remedy, *_values(estimate), lacks)
        reason, remedy = (why.reason, why.remedy) if why else ("", "")
        return PlannedCell(cell, status.state, reason, remedy, *_values(estimate), why is not None)

    def _lacks(self, cell: Cell) -> Why | None:
        """Return what has to be fetched before a cell can be made."""
        images = self.of(cell)
        if cell.kind == COMPARE:
            return self._lacks_models(cell)
        embedded = cell.model in images.features
        if embedded and not KINDS_BY_NAME[cell.kind].opens_images:
            return None
        if images.images.data.bank is not None:
            if embedded or not images.there:
                return self.no_images[images.images.name]
            return Why(
                f"{cell.model} is not in {images.bank}",
                "run `embank embed` for this model, or give the data set's manifest in place of its bank",
            )
        return self.no_images[images.images.name] or self.no_weights[cell.model]

    def _lacks_models(self, cell: Cell) -> Why | None:
        """Return what a comparison lacks: the first thing that leaves it fewer than two models."""
        images = self.of(cell)
        models = cell.options["models"]
        names = [str(name) for name in models] if isinstance(models, list) else []
        able = [name for name in names if name in images.features or self.no_weights[name] is None]
        if self.no_images[images.images.name] is not None and not images.features:
            return self.no_images[images.images.name]
        if len(able) >= 2:
            return None
        return next((why for name in names if (why := self.no_weights[name]) is not None), None)

    def to_fetch(self, cells: Sequence[PlannedCell]) -> tuple[Why, ...]:
        """Return what cells lack that are to be made: files of data sets, then weights of models."""
        lacking = [one.cell for one in cells if one.lacks]
        names = dict.fromkeys(self.sets[cell.digest] for cell in lacking)
        models = {cell.model for cell in lacking}
        whys = [self.no_images[name] for name in names]
        whys += [self.no_weights[model.name] for model in self.study.models if model.name in models]
        if any(one.cell.kind == "reconstruct" and one.state in ("missing", "failed") for one in cells):
            whys += lpips_lacks()
        return tuple(dict.fromkeys(why for why in whys if why is not None))

    def notes(self, cells: Sequence[PlannedCell], passes: Sequence[EmbedPass]) -> list[str]:
        """Return remarks on the plan as a whole."""
        notes = []
        todo = [one.measured for one in cells if one.state in ("missing", "failed")]
        if not all((*todo, *(one.measured for one in passes))):
            notes.append(
                f"Times without a record of this study are by a table measured on {MACHINE}: take them for "
                "the order of magnitude, and plan again once something has been made here"
            )
        return notes


def _values(estimate: Estimate) -> tuple[float, bool]:
    return estimate.seconds, estimate.measured
