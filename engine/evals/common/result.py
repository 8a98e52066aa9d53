"""Results of evaluations: metrics with intervals, predictions of single images, a JSON document."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan, nan
from typing import Protocol

from engine.evals.common.predictions import Predictions
from engine.evals.common.validity import ValidityIssue
from stores.json_types import JsonObject


@dataclass(frozen=True)
class Metric:
    """One number of a result.

    Attributes:
        value: NaN where it is undefined.
        low, high: its 95 % interval; NaN where there is none.
        reason: why the value or its interval is undefined, or what the value leaves out; else "".
    """

    value: float
    low: float = nan
    high: float = nan
    reason: str = ""

    def __post_init__(self) -> None:
        if isnan(self.value) and not self.reason:
            raise ValueError("a number that is undefined has a reason")


class Result(Protocol):
    """A result of any evaluation; implementations are frozen dataclasses."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for the reader, one sentence each."""

    @property
    def validity(self) -> tuple[ValidityIssue, ...]:
        """Issues that the evaluation knows of; its record has those of features and parts, too."""

    def metrics(self) -> Mapping[str, Metric]:
        """Return the numbers by name, the headline first."""

    def predictions(self) -> Predictions | None:
        """Return the predictions for single images; None if there are none."""

    def to_dict(self) -> JsonObject:
        """Return the result as a record keeps it."""
