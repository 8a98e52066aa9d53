"""What probes answered on their test images, from the predictions beside their records."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.report.page.groups import Group, Member
from engine.report.page.repeats import first_repeat
from stores.bank.predictions import read_predictions_of
from stores.errors import EmbankError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, eq=False)
class Answers:
    """One class against the rest on the test images.

    Attributes:
        model: name.
        positive: bool [n]; score: float64 [n], larger is likelier.
    """

    model: str
    positive: NDArray[np.bool_]
    score: NDArray[np.float64]


def answers_of(group: Group) -> tuple[dict[str, list[Answers]], tuple[str, ...]]:
    """Read the predictions of a group's records.

    Returns:
        Class or finding -> answers of each model that has some; of two classes the second one only, of
        several repeats of a cross-validation the first one only. And notes about records without
        predictions, or with damaged ones.
    """
    classes: dict[str, list[Answers]] = {}
    notes = []
    for member in group.members:
        if not member.record.predictions:
            notes.append(f"{group.title}: no predictions lie beside the record of {member.model}.")
            continue
        try:
            table = first_repeat(read_predictions_of(group.bank, member.entry))
            own = list(_answers(member, table))
        except EmbankError as error:
            notes.append(f"{group.title}: no curve of {member.model}: {error.found}.")
            continue
        if not own:
            notes.append(f"{group.title}: the predictions of {member.model} have no score for each class.")
        for name, answers in own:
            classes.setdefault(name, []).append(answers)
    return classes, tuple(notes)


def _answers(member: Member, table: "pa.Table") -> Iterator[tuple[str, Answers]]:
    names = [column.removeprefix("score.") for column in table.column_names if column.startswith("score.")]
    findings = member.record.metrics.get("findings") is not None
    shown = names[1:] if len(names) == 2 and not findings else names
    truth = None if findings else table.column("truth").to_numpy().astype(str)
    for name in shown:
        score = table.column(f"score.{name}").to_numpy().astype(np.float64)
        if truth is None:
            there = np.isfinite(score)
            positive = table.column(f"truth.{name}").to_numpy()[there] == 1
        else:
            there = np.isfinite(score)
            positive = truth[there] == name
        if there.any():
            yield name, Answers(member.model, positive, score[there])
