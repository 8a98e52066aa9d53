"""Values of records as figures take them, NaN where undefined, and a refusal where one is missing."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from stores.bank.records import RunRecord
from stores.json_types import Json


def number(value: Json) -> float:
    """Return a number of a record; NaN where it is undefined or no number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")


def numbers(value: Json) -> NDArray[np.float64]:
    """Return a list of a record as float64 [n]; NaN where a member is undefined."""
    return np.array([number(member) for member in value] if isinstance(value, list) else [], np.float64)


def text(value: Json) -> str:
    """Return a text of a record; "" where it has none."""
    return value if isinstance(value, str) else ""


def at(body: "Json | Mapping[str, Json]", path: str) -> Json:
    """Return the value at a dotted path; None where there is none."""
    value: Json | Mapping[str, Json] = body
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return dict(value) if isinstance(value, Mapping) else value


def lacking(record: RunRecord, paths: Sequence[str]) -> str:
    """Return the first of some dotted paths where a record has nothing; "" if it has all."""
    return next((path for path in paths if at(record.to_dict(), path) is None), "")


def refuse_lacking(record: RunRecord, paths: Sequence[str], remedy: str, name: str = "") -> None:
    """Refuse a record that lacks what its figure shows.

    Args:
        paths: dotted, e.g. `metrics.sweep`.
        remedy: how to make a record that has it.
        name: of the record; by default its kind, model and time.

    Raises:
        Refused: naming the record and the first path it lacks.
    """
    if path := lacking(record, paths):
        name = name or f"The {record.kind} record of {text(record.asked.get('model'))} ({record.created})"
        raise Refused(
            f"{name} has no {path}",
            "A figure is drawn from the record alone, and earlier versions of embank recorded less",
            remedy,
        )
