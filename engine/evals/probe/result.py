"""Result of a probe, in one form for a single task, the study's loop, and several findings."""

from dataclasses import dataclass

from engine.evals.common.predictions import Predictions
from engine.evals.common.result import Metric
from engine.evals.common.validity import ValidityIssue
from engine.evals.probe.fold_result import FoldsResult
from engine.evals.probe.lowshot import LowShotCurve
from engine.evals.probe.multilabel import FindingsResult
from engine.evals.probe.parts import Parts
from engine.evals.probe.targets import Target
from engine.evals.probe.task import ProbeResult, PublishedResult
from stores.json_types import Json, JsonObject


@dataclass(frozen=True)
class Result:
    """Result of a probe.

    Attributes:
        outcome: of the one task, of the study's loop on it, of its folds, or of several findings.
        parts: rows of each part.
        targets: what was learned.
        backend: that solved.
        low_shot: the curve, if one was requested.
    """

    outcome: ProbeResult | PublishedResult | FoldsResult | FindingsResult
    parts: Parts
    targets: tuple[Target, ...]
    backend: str
    low_shot: LowShotCurve | None = None

    def __repr__(self) -> str:
        return f"Result({self.outcome!r})"

    @property
    def tasks(self) -> list[ProbeResult | PublishedResult | FoldsResult]:
        """The one task, or the findings that have a result."""
        return [*self.outcome.fitted] if isinstance(self.outcome, FindingsResult) else [self.outcome]

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for the reader, one sentence each."""
        several = isinstance(self.outcome, FindingsResult)
        return (*(self.parts.notes if several else ()), *self.outcome.notes)

    @property
    def validity(self) -> tuple[ValidityIssue, ...]:
        """Issues of the parts, the features, the choice of C and the fits."""
        curve = () if self.low_shot is None else tuple(self.low_shot.validity)
        return (*self.outcome.validity, *curve)

    def metrics(self) -> dict[str, Metric]:
        """Return the headline metrics of the test part, accuracy first; means where there are findings."""
        return self.outcome.metrics()

    def predictions(self) -> Predictions:
        """Return a row for each test image, as the outcome does."""
        return self.outcome.predictions()

    def to_dict(self) -> JsonObject:
        """Return the outcome's document, with `low_shot`, `other_splits` and `targets`."""
        body = self.outcome.to_dict()
        body["notes"] = [*self.notes]
        if self.low_shot is not None:
            body["low_shot"] = self.low_shot.to_dict()
        targets: list[Json] = [target.to_dict() for target in self.targets]
        return {**body, "other_splits": dict(self.parts.others), "targets": targets}
