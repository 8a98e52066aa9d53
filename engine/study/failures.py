"""Failures of a study's cells: one small document each, which goes when the cell succeeds."""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.study.study import Cell
from stores.errors import EmbankError
from stores.manifest.atomic_file import atomic_file

FOLDER = "failures"
#: Bytes of a document that is read.
_MOST = 1 << 16


@dataclass(frozen=True)
class Failure:
    """Why a cell has no result.

    Attributes:
        cell: its digest.
        label: its name for people.
        value, rule, remedy: as errors state them.
        exit_code: that the command of this evaluation alone would end with.
    """

    cell: str
    label: str
    value: str
    rule: str
    remedy: str
    exit_code: int

    @classmethod
    def of(cls, cell: Cell, error: EmbankError) -> "Failure":
        """Describe the error of a cell."""
        return cls(cell.digest, cell.label, error.found, error.rule, error.remedy, error.exit_code)

    @property
    def why(self) -> str:
        """Why it failed and what to do, in one line."""
        return f"{self.value}. {self.rule}. Remedy: {self.remedy}."


def keep(directory: Path, failure: Failure) -> None:
    """Write a failure, in place of an earlier one of the cell. Raises MachineFault: the disk is full."""
    folder = directory / FOLDER
    folder.mkdir(exist_ok=True)
    body = json.dumps({"schema": 1, **asdict(failure)}, indent=2, sort_keys=True) + "\n"
    with atomic_file(folder / f"{failure.cell}.json") as file:
        file.write(body.encode())


def forget(directory: Path, cell: Cell) -> None:
    """Remove the failure of a cell that has a result now."""
    (directory / FOLDER / f"{cell.digest}.json").unlink(missing_ok=True)


def forget_others(directory: Path, failed: Collection[str]) -> None:
    """Remove the failures of all cells but these (digests), such as those that a study no longer has."""
    folder = directory / FOLDER
    for path in folder.glob("*.json") if folder.is_dir() else ():
        if path.stem not in failed:
            path.unlink(missing_ok=True)


def failures_of(directory: Path, cells: Mapping[str, Cell]) -> dict[str, Failure]:
    """Read the failures of cells; those of cells that the study no longer has are left out.

    Args:
        cells: digest -> cell.

    Returns:
        Digest -> failure. A document that cannot be read counts as none: its cell is tried again.
    """
    folder = directory / FOLDER
    names = {path.stem: path for path in folder.glob("*.json")} if folder.is_dir() else {}
    read = {digest: _read(names[digest]) for digest in cells if digest in names}
    return {digest: failure for digest, failure in read.items() if failure is not None}


def _read(path: Path) -> Failure | None:
    try:
        with path.open("rb") as file:
            body = json.loads(file.read(_MOST))
        texts = {name: str(body[name]) for name in ("cell", "label", "value", "rule", "remedy")}
        return Failure(**texts, exit_code=int(body["exit_code"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
