"""What the report page of a bank or of a study's folder is made from, and the page's files.

import embank
embank.report("xrays.bank", "report.html")
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path

from engine.errors import Refused
from engine.report.page.blocks import Section
from engine.report.page.collect import bank_source
from engine.report.page.inputs import Gap, PageInput, PageOptions, Source
from engine.report.page.output import Output
from engine.study import folder
from engine.study.cells import COMPARE, cells_of
from engine.study.command import command_of
from engine.study.comparing import compared_cells, comparison_records
from engine.study.failures import Failure, failures_of
from engine.study.image_sets import bank_of
from engine.study.ledger import Ledger
from engine.study.read import read_study
from engine.study.study import Cell, Study
from stores.backends import files
from stores.backends.location import Place, place
from stores.bank.record_index import RecordEntry
from stores.json_types import Json, JsonObject

#: What a page can be set against -> module with `sections(page, options)`.
AGAINST = {"paper": "benchmarks.paper.against"}


@dataclass(frozen=True)
class Report:
    """A page that was written.

    Attributes:
        page: its file.
        tables: files of its tables.
        records: number of records that it is drawn from.
        gaps: records that cannot be read, and cells of the study without a number.
        size: of the page in bytes.
    """

    page: Path
    tables: tuple[Path, ...]
    records: int
    gaps: tuple[Gap, ...]
    size: int

    @property
    def damaged(self) -> tuple[Gap, ...]:
        """Records that cannot be read."""
        return tuple(gap for gap in self.gaps if not gap.model and gap.evaluation.startswith("record "))

    def to_dict(self) -> JsonObject:
        """Return `{file, bytes, records, tables, gaps}`."""
        gaps: list[Json] = [{**vars(gap)} for gap in self.gaps]
        tables: list[Json] = [str(path) for path in self.tables]
        return {
            "file": str(self.page),
            "bytes": self.size,
            "records": self.records,
            "tables": tables,
            "gaps": gaps,
        }


def report(
    source: str | PathLike[str],
    out: str | PathLike[str],
    *,
    against: str | None = None,
    thumbnails: bool = False,
    tables: str | PathLike[str] | None = None,
    timings: bool = True,
    force: bool = False,
) -> Report:
    """Write the report page of a bank, or of a study's folder.

    The same records give the same bytes. Nothing is written into the bank; where it has no comparisons of
    its models, they are computed for the page.

    Args:
        source: a bank, or the folder of `embank study run`.
        out: the page, ending in .html; an earlier page is replaced.
        against: `paper` sets the numbers beside the published ones.
        thumbnails: show single images, e.g. the worst errors; patients may be recognised by theirs.
        tables: folder for each table as CSV and LaTeX.
        timings: whether dates, times and record ids are shown.
        force: replace files of another origin.

    Raises:
        Refused: neither a bank nor a study, or an output that must not be written; nothing was changed.
        BankError: the bank is damaged. MachineFault: the disk is full or fails.
    """
    further = _further(against)
    page = page_input(source)
    output = Output(Path(out), None if tables is None else Path(tables), force, _banks(page))
    output.check()
    options = PageOptions(timings=timings, thumbnails=thumbnails)
    sections = further.sections(page, options) if further else ()
    size, written = output.write(page, options, sections)
    count = sum(len(source.entries) for source in page.sources)
    return Report(output.page, written, count, page.gaps, size)


class _Further:
    """Sections from a package above this one."""

    def __init__(self, module: str) -> None:
        self._module = module

    def sections(self, page: PageInput, options: PageOptions) -> tuple[Section, ...]:
        made: tuple[Section, ...] = importlib.import_module(self._module).sections(page, options)
        return made


def _further(against: str | None) -> _Further | None:
    if against is None:
        return None
    if against not in AGAINST:
        raise Refused(f"against {against!r}", f"It is one of {', '.join(AGAINST)}", "name one")
    return _Further(AGAINST[against])


def _banks(page: PageInput) -> tuple[Place, ...]:
    return tuple(dict.fromkeys(source.bank for source in page.sources))


def page_input(source: str | PathLike[str]) -> PageInput:
    """Return what the page of a bank, or of a study's folder, shows.

    Raises:
        Refused: neither. BankError: the bank is damaged. MachineFault: I/O error.
    """
    where = place(fspath(source))
    local = files.local_path(where)
    if local is not None and (local / folder.COPY).is_file():
        return study_input(local)
    own, gaps = bank_source(where)
    compared = tuple(comparison_records(own.bank, own.entries))
    return PageInput(own.name, (replace(own, entries=(*own.entries, *compared)),), gaps=gaps)


def study_input(directory: Path) -> PageInput:
    """Return what the page of a study's folder shows: the records of its cells, and the cells without one.

    Raises:
        Refused: the study file is damaged. BankError: a bank is. MachineFault: I/O error.
    """
    copy = directory / folder.COPY
    note = folder.read_note(directory)
    study = read_study(copy, Path(note.root)) if note is not None else read_study(copy)
    cells = cells_of(study)
    failed = failures_of(directory, {cell.digest: cell for cell in cells})
    groups: dict[tuple[str, Path], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.dataset, bank_of(directory, study, cell)), []).append(cell)
    parts = [_Part.of(study, own, bank, cells) for (_, bank), own in groups.items()]
    return PageInput(
        study.title or study.name,
        tuple(part.source for part in parts if part.source is not None),
        models=tuple(model.name for model in study.models),
        groups={model.name: model.group for model in study.models if model.group},
        gaps=tuple(_gap(cell, failed.get(cell.digest)) for part in parts for cell in part.open),
        study=copy.read_text("utf-8"),
        commands={entry: command for part in parts for entry, command in part.commands.items()},
        evaluations={entry: name for part in parts for entry, name in part.evaluations.items()},
    )


@dataclass(frozen=True)
class _Part:
    """The cells of one bank.

    Attributes:
        source: records of those that are done; None where there is no bank.
        open: cells without a record.
        commands, evaluations: record id -> the command that makes it again; name of its evaluation.
    """

    source: Source | None
    open: tuple[Cell, ...]
    commands: dict[str, str]
    evaluations: dict[str, str]

    @classmethod
    def of(cls, study: Study, own: Sequence[Cell], bank: Path, cells: Sequence[Cell]) -> "_Part":
        """Find the records of a bank's cells; `cells` are all of the study."""
        if not bank.exists():
            return cls(None, tuple(own), {}, {})
        ledger = Ledger.of(bank)
        answers = [(cell, ledger.record(cell, _compared(cell, cells))) for cell in own]
        done = [(cell, replace(entry, model=cell.model)) for cell, entry in answers if entry is not None]
        data = next(data for data in study.datasets if data.name == own[0].dataset)
        return cls(
            Source(data.name, ledger.bank.path, tuple(entry for _, entry in done), data.domain),
            tuple(cell for cell, entry in answers if entry is None),
            {entry.id: _command(study, cell, bank, entry) for cell, entry in done},
            {entry.id: cell.evaluation for cell, entry in done},
        )


def _compared(cell: Cell, cells: Sequence[Cell]) -> tuple[Cell, ...]:
    return compared_cells(cell, cells) if cell.kind == COMPARE else ()


def _command(study: Study, cell: Cell, bank: Path, entry: RecordEntry) -> str:
    assert entry.record is not None
    names = entry.record.used.get("compared")
    return command_of(study, cell, bank, tuple(map(str, names)) if isinstance(names, list) else ())


def _gap(cell: Cell, failure: Failure | None) -> Gap:
    state, reason, remedy = "missing", "it has not been made yet", "run the study again"
    if failure is not None:
        state, reason, remedy = "failed", f"{failure.value}. {failure.rule}", failure.remedy
    return Gap(cell.dataset, cell.model, cell.evaluation, cell.mode, cell.seed, state, reason, remedy)
