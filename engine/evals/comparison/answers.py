"""Answers of the models on the same images, read from the predictions beside their records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.comparison.choose import Chosen
from stores.bank.predictions import read_predictions_of
from stores.bank.reader import Bank

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float64]

#: Patients below which percentiles of resamples are known to be too narrow.
FEW = 15


@dataclass(frozen=True, eq=False)
class Answers:
    """The predictions of one record.

    Attributes:
        name: of the model.
        bank: that the record lies in.
        table: of single images, a row for each.
    """

    name: str
    bank: Bank
    table: "pa.Table"

    @classmethod
    def read(cls, name: str, chosen: Chosen) -> "Answers":
        """Read the predictions.

        Raises:
            Refused: the record has none, or is about other images than its bank has. BankError: damage.
        """
        images = chosen.record.used.get("image_digest")
        if images != chosen.bank.image_digest:
            raise Refused(
                f"record {chosen.entry.id} is about other images than {chosen.bank.path} has",
                "Its rows are looked up in the bank",
                "run the evaluation again",
            )
        return cls(name, chosen.bank, read_predictions_of(chosen.bank.path, chosen.entry, _images(chosen)))

    def column(self, name: str) -> Any:
        """Return a column as an array of numbers or texts.

        Raises:
            Refused: the table has none of this name.
        """
        if name not in self.table.column_names:
            raise Refused(
                f"The predictions of {self.name} have no {name}",
                "Beside a record with very many classes lies only each image's largest score",
                "compare another metric, e.g. --metric accuracy",
            )
        return self.table.column(name).to_numpy()

    def names(self, prefix: str) -> list[str]:
        """Return what follows a prefix in the names of the columns that begin with it."""
        columns: list[str] = self.table.column_names
        return [name.removeprefix(prefix) for name in columns if name.startswith(prefix)]

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """Row of each image in the bank."""
        rows: NDArray[np.int64] = self.column("row")
        return rows

    @cached_property
    def image_ids(self) -> NDArray[np.object_]:
        """Id of each image."""
        ids: NDArray[np.object_] = self.column("image_id")
        return ids

    @cached_property
    def patients(self) -> NDArray[np.object_]:
        """Patient of each image by the bank's manifest of today; "" where none is known."""
        codes, names = self.bank.column("group")
        texts = np.array([*names, ""], object)
        patients: NDArray[np.object_] = texts[codes[self.rows]]
        return patients


def _images(chosen: Chosen) -> str | None:
    return "images" if "images" in chosen.record.predictions else None


@dataclass(frozen=True, eq=False)
class Panel:
    """The predictions of all models on the images that they have in common.

    Attributes:
        answers: of each model.
        places: for each model intp [n], where the images are in its table.
        units: int64 [n], patient of each image, from 0; an image without a patient is one of its own.
        count: number of patients.
        patients: whether an image names its patient.
        notes: remarks for the reader, one sentence each.
    """

    answers: tuple[Answers, ...]
    places: tuple[NDArray[np.intp], ...]
    units: NDArray[np.int64]
    count: int
    patients: bool
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.units)

    @property
    def unit(self) -> str:
        """Units of the resamples: patients or images."""
        return "patients" if self.patients else "images"

    def column(self, model: int, name: str) -> Any:
        """Return a column of one model's predictions for the images in common."""
        return self.answers[model].column(name)[self.places[model]]

    def shared(self, name: str) -> Any:
        """Return a column that all models must have alike, such as the truth.

        Raises:
            Refused: two models differ in it.
        """
        first = self.column(0, name)
        for model in range(1, len(self.answers)):
            own = self.column(model, name)
            differ = own != first
            if own.dtype.kind == "f":
                differ &= ~(np.isnan(own) & np.isnan(first))
            if differ.any():
                raise Refused(
                    f"{int(differ.sum()):,} of {len(self):,} images have another {name} for "
                    f"{self.answers[model].name} than for {self.answers[0].name}",
                    "Models are compared on the same labels; these records were made with different ones",
                    "run the evaluation of both models again",
                )
        return first


def align(answers: Sequence[Answers], common: bool) -> Panel:
    """Find the images that all models were tested on.

    Args:
        answers: of each model, at least two.
        common: allow that some images are not common to all.

    Raises:
        Refused: the images differ and may not, or none is common; or banks name different patients.
    """
    notes: list[str] = []
    places = _places(answers, common, notes)
    patients = _patients(answers, places)
    known = patients != ""
    if not known.any():
        notes.append("No image names its patient (group): images count as independent")
    elif not known.all():
        notes.append(f"{int((~known).sum()):,} images name no patient, and each counts as one of its own")
    names, codes = np.unique(patients[known].astype(str), return_inverse=True)
    units = np.empty(len(patients), np.int64)
    units[known] = codes
    alone, codes = np.unique(answers[0].rows[places[0]][~known], return_inverse=True)  # perhaps repeated
    units[~known] = len(names) + codes
    count = len(names) + len(alone)
    if 2 <= count < FEW:
        unit = "patients" if known.any() else "images"
        notes.append(f"With {count} {unit} intervals come out too narrow; p allows for that")
    return Panel(tuple(answers), tuple(places), units, count, bool(known.any()), tuple(notes))


def _places(answers: Sequence[Answers], common: bool, notes: list[str]) -> list[NDArray[np.intp]]:
    first = answers[0]
    images = first.bank.image_digest
    if all(own.bank.image_digest == images and np.array_equal(own.rows, first.rows) for own in answers):
        return [np.arange(len(first.rows))] * len(answers)
    ids = [own.image_ids.astype(str) for own in answers]
    shared = ids[0]
    for own in ids[1:]:
        shared = np.intersect1d(shared, own)
    if not len(shared) or (not common and any(len(own) != len(shared) for own in ids)):
        raise _different_images(answers, len(shared))
    if any(len(own) != len(shared) for own in ids):
        most = max(map(len, ids))
        notes.append(f"Compared on the {len(shared):,} images that all models have, of up to {most:,}")
    places = []
    for own in ids:
        order = np.argsort(own)
        places.append(order[np.searchsorted(own[order], shared)])
    return places


def _different_images(answers: Sequence[Answers], shared: int) -> Refused:
    first = answers[0]
    other = next((own for own in answers[1:] if set(own.image_ids) != set(first.image_ids)), answers[-1])
    counts = (
        f"{first.name} was tested on {len(first.rows):,} images and {other.name} on {len(other.rows):,}; "
        f"{shared:,} are common to all models"
    )
    rule = "Models are compared on the same images"
    if not shared:
        return Refused(counts, rule, "choose records of the same images")
    return Refused(
        counts, rule, "give --common to compare on these, or evaluate the models again in one command"
    )


def _patients(answers: Sequence[Answers], places: Sequence[NDArray[np.intp]]) -> NDArray[np.object_]:
    """Return the patients of the images; those of the first bank that knows some."""
    by_bank: dict[str, tuple[str, NDArray[np.object_]]] = {}
    for own, at in zip(answers, places, strict=True):
        by_bank.setdefault(str(own.bank.path), (str(own.bank.path), own.patients[at]))
    known = [(path, patients) for path, patients in by_bank.values() if (patients != "").any()]
    for path, patients in known[1:]:
        if not np.array_equal(patients, known[0][1]):
            raise Refused(
                f"{path} and {known[0][0]} name different patients for the same images",
                "Images of a patient are resampled together",
                f"give both banks the same groups with `embank bank relabel`, for instance {path}",
            )
    return known[0][1] if known else next(iter(by_bank.values()))[1]


def codes_of(texts: Any, names: Sequence[str]) -> NDArray[np.int64]:
    """Return the places of texts in a list of names."""
    place: Mapping[str, int] = {name: at for at, name in enumerate(names)}
    values, inverse = np.unique(texts.astype(str), return_inverse=True)
    codes: NDArray[np.int64] = np.array([place[value] for value in values.tolist()], np.int64)[inverse]
    return codes
