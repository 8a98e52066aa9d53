"""What the report page of a bank or of a study's folder is made from, and the page's files.

import embank
embank.report("xrays.bank", "report.html")
"""

import importlib
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path

from engine.errors import Refused
from engine.report.page.blocks import Section
from engine.report.page.collect import bank_source
from engine.report.page.inputs import Gap, PageInput, PageOptions
from engine.report.page.output import Output
from engine.study import folder
from engine.study.comparing import comparison_records
from engine.study.page_input import page_input
from engine.study.read import read_study
from stores.backends import files
from stores.backends.location import Place, place
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
    page = input_of(source)
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


def input_of(source: str | PathLike[str]) -> PageInput:
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
    copy, note = directory / folder.COPY, folder.read_note(directory)
    study = read_study(copy, Path(note.root)) if note is not None else read_study(copy)
    return page_input(study, directory)
