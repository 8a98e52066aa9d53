"""Where our own records lie: in a bank, or in the banks of a study's folder."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks.paper.names import DATASET_LABELS, DATASETS
from engine.errors import Refused
from engine.report.page.inputs import Source
from engine.study.folder import COPY, read_note
from engine.study.page_input import page_input
from engine.study.read import read_study
from stores.backends.location import place
from stores.bank.reader import Bank
from stores.bank.record_index import read_index

#: Beginning of what follows a data set's name where a mode has images or labels of its own.
_PUBLISHED = ".as-published"


def read_sources(where: Path | str, datasets: Mapping[str, str] | None = None) -> tuple[Source, ...]:
    """Read the records of a bank, or those of a study's cells from its folder.

    Args:
        where: a bank, or a folder with `study.yaml` or `banks/NAME.bank`.
        datasets: name of a bank's file without its ending -> the data set's name in the paper.

    Returns:
        A source for each bank; several may be of one data set.

    Raises:
        Refused: there is no bank, or the study's file has an error. BankError: a bank's own documents are
            damaged. MachineFault: I/O error.
    """
    folder, names = Path(where), dict(datasets or {})
    if (folder / COPY).is_file():
        sources, own = _of_study(folder)
        names = own | names
    elif (folder / "banks").is_dir():
        banks = [place(path) for path in sorted((folder / "banks").glob("*.bank"))]
        sources = tuple(Source(dataset_of(bank.name), bank, tuple(read_index(bank))) for bank in banks)
    else:
        bank = Bank.open(where).path
        sources = (Source(dataset_of(folder.name), bank, tuple(read_index(bank))),)
    if not sources:
        raise Refused(
            f"{folder} has no bank with results",
            "A study keeps a bank for each of its data sets",
            "run the study first: `embank study run`",
        )
    return tuple(replace(source, name=names.get(source.name, source.name)) for source in sources)


def _of_study(folder: Path) -> tuple[tuple[Source, ...], dict[str, str]]:
    """Return the sources of a study, and its data sets' names in `engine.datasets`."""
    note = read_note(folder)
    study = read_study(folder / COPY, Path(note.root) if note else None)
    names = {
        data.name: data.builtin
        for data in study.datasets
        if data.builtin in DATASETS and data.name not in DATASET_LABELS
    }
    return tuple(map(of_dataset, page_input(study, folder).sources)), names


def of_dataset(source: Source) -> Source:
    """Return a source under its data set's name, whatever images or labels of it a mode uses."""
    return replace(source, name=dataset_of(source.name))


def dataset_of(bank: str) -> str:
    """Return the data set that a bank, or a part of a page, is named after."""
    return bank.removesuffix(".bank").partition(_PUBLISHED)[0]
