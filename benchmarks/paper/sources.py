"""Where our own records lie: in a bank, or in the banks of a study's folder."""

from collections.abc import Mapping
from pathlib import Path

from engine.errors import Refused
from engine.report.page.inputs import Source
from engine.study.cells import cells_of
from engine.study.read import read_study
from stores.backends.location import Place, place
from stores.bank.reader import Bank
from stores.bank.record_index import RecordEntry, read_index, text_of

#: Beginning of the ending of a study's banks that only mode `as-published` uses.
_PUBLISHED = ".as-published"
_STUDY = "study.yaml"


def read_sources(where: Path | str, datasets: Mapping[str, str] | None = None) -> tuple[Source, ...]:
    """Read the records of a bank, or of a study's folder: of a study those that its file asks for.

    Args:
        where: a bank, or a folder with `banks/NAME.bank`.
        datasets: name of a bank's file without its ending -> the data set's name in the paper.

    Returns:
        A source for each bank; several may be of one data set.

    Raises:
        Refused: there is no bank, or the study's file has an error. BankError: a bank's own documents are
            damaged. MachineFault: I/O error.
    """
    folder = Path(where)
    if not (folder / "banks").is_dir():
        bank = Bank.open(where).path
        name = dataset_of(folder.name)
        return (_source(bank, (datasets or {}).get(name, name), None),)
    names, digests = _study(folder / _STUDY)
    names |= datasets or {}
    banks = sorted((folder / "banks").glob("*.bank"))
    if not banks:
        raise Refused(
            f"{folder / 'banks'} has no bank",
            "A study keeps a bank for each of its data sets there",
            "run the study first: `embank study run`",
        )
    return tuple(
        _source(place(bank), names.get(dataset_of(bank.name), dataset_of(bank.name)), digests)
        for bank in banks
    )


def dataset_of(bank: str) -> str:
    """Return the data set that a bank's file is named after."""
    return bank.removesuffix(".bank").partition(_PUBLISHED)[0]


def _study(file: Path) -> tuple[dict[str, str], frozenset[str] | None]:
    """Read the data sets' names in `engine.datasets`, and the digests of the cells; None without a file."""
    if not file.is_file():
        return {}, None
    study = read_study(file)
    names = {data.name: data.builtin for data in study.datasets if data.builtin}
    return names, frozenset(cell.digest for cell in cells_of(study))


def _source(bank: Place, dataset: str, cells: frozenset[str] | None) -> Source:
    entries = [entry for entry in read_index(bank) if cells is None or _cell_of(entry) in cells]
    return Source(dataset, bank, tuple(entries))


def _cell_of(entry: RecordEntry) -> str:
    return "" if entry.record is None else text_of(entry.record.used.get("cell"))
