"""The state of a study's cells, read from its folder; nothing is changed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.study import folder
from engine.study.cells import COMPARE, cells_of, compared_cells
from engine.study.failures import Failure, failures_of
from engine.study.feasible import Why, impossible
from engine.study.image_sets import banks_of
from engine.study.ledger import Ledger
from engine.study.progress import State, running
from engine.study.read import read_study
from engine.study.study import Cell, Study
from stores.bank.record_index import RecordEntry
from stores.errors import Refused


@dataclass(frozen=True)
class CellStatus:
    """A cell and its state.

    Attributes:
        cell: the cell.
        state: done, running, failed, missing or impossible.
        bank: that its record lies in, or will lie in.
        entry: its record, if it is done.
        failure: why it failed last time; None for other states.
        reason: why it is impossible; "" for other states.
        remedy: of an impossible cell.
    """

    cell: Cell
    state: State
    bank: Path
    entry: RecordEntry | None = None
    failure: Failure | None = None
    reason: str = ""
    remedy: str = ""


def states_of(
    study: Study, directory: Path, ledgers: dict[Path, Ledger | None] | None = None
) -> tuple[CellStatus, ...]:
    """Return the state of each cell of a study, in its order.

    Args:
        study: whose cells; directory: its folder, perhaps absent.
        ledgers: of banks that have been read; those of others are added.

    Raises:
        BankError: a bank is damaged.
    """
    cells = cells_of(study)
    failures = failures_of(directory, {cell.digest: cell for cell in cells})
    now, _ = running(directory)
    whys = impossible(study, directory, cells)
    read: dict[Path, Ledger | None] = {} if ledgers is None else ledgers
    banks = banks_of(directory, study, cells)
    return tuple(
        _state(cell, cells, bank, _ledger(read, bank), failures, now, whys)
        for cell, bank in zip(cells, banks, strict=True)
    )


def _ledger(ledgers: dict[Path, Ledger | None], bank: Path) -> Ledger | None:
    if bank not in ledgers:
        ledgers[bank] = Ledger.if_there(bank)
    return ledgers[bank]


def _state(
    cell: Cell,
    cells: tuple[Cell, ...],
    bank: Path,
    ledger: Ledger | None,
    failures: Mapping[str, Failure],
    now: frozenset[str],
    whys: Mapping[str, Why],
) -> CellStatus:
    compared = compared_cells(cell, cells) if cell.kind == COMPARE else ()
    entry = ledger.record(cell, compared) if ledger else None
    failure = failures.get(cell.digest)
    if entry is not None and failure is None:  # both: what it was made from has changed since
        return CellStatus(cell, "done", bank, entry)
    if (why := whys.get(cell.digest)) is not None:
        return CellStatus(cell, "impossible", bank, reason=why.reason, remedy=why.remedy)
    if cell.digest in now:
        return CellStatus(cell, "running", bank)
    return CellStatus(cell, "failed" if failure else "missing", bank, None, failure)


def study_in(directory: Path) -> Study:
    """Read the study of a folder that `study run` has made.

    Raises:
        Refused: it is none, or its study file cannot be read.
    """
    note = folder.read_note(directory)
    if note is None:
        raise Refused(
            f"{directory} is not the folder of a study",
            "A run makes it, with study.yaml and study.json in it",
            "name the folder that `embank study run --dir` was given, or the study file",
        )
    return read_study(directory / folder.COPY, Path(note.root))
