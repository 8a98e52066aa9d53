"""Controls of an evaluation: the same splits and options, with features or labels that know little.

from engine.evals.controls.evaluate import controls_of
controls = controls_of("knn", features, options, result, compute)
controls.below, controls.to_dict()
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from engine.errors import EmbankError
from engine.evals.common.compute import Compute
from engine.evals.common.features import Features
from engine.evals.common.validity import ValidityIssue
from engine.evals.controls.cases import Case, case_of
from engine.evals.controls.columns import metadata_of
from engine.evals.controls.images import Progress, statistics_of
from engine.evals.controls.scores import Control, Controls, mean_of, with_difference
from engine.evals.controls.untrained import untrained_of
from stores.bank.array_cache import ArrayFile
from stores.json_types import JsonObject

#: Permutations of the labels.
REPEATS = 5


def controls_of(
    kind: str,
    features: Features,
    options: Any,
    result: Any,
    compute: Compute,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> "ControlsReport":
    """Evaluate the controls of a result.

    A control that cannot be had is listed with its reason; nothing is embedded and nothing written.

    Args:
        kind: `probe`, `knn` or `fewshot`.
        features, options, result, compute: of the evaluation.
        seed: of the permutations of the labels.
        progress: called with (what, done, to do).

    Raises:
        Refused: another kind of evaluation.
    """
    case = case_of(kind, features, options, result, compute)
    maker = _Maker(case, compute, seed, progress)
    model, patients = case.model, None if features.groups is None else features.groups.codes
    controls = tuple(with_difference(control, model, patients) for control in maker.all())
    return ControlsReport(Controls(model, controls), tuple(maker.caches))


@dataclass(frozen=True, eq=False)
class ControlsReport:
    """Controls, and the arrays that the bank is to keep with the record.

    Attributes:
        controls: with the numbers that are below one.
        caches: empty where nothing was computed that can be kept.
    """

    controls: Controls
    caches: tuple[ArrayFile, ...]

    @property
    def validity(self) -> tuple[ValidityIssue, ...]:
        """Issues of numbers below a control, and not told from one."""
        return self.controls.validity

    def to_dict(self) -> JsonObject:
        """Return `{controls, below_control}`."""
        return self.controls.to_dict()


@dataclass
class _Maker:
    """Makes the controls of a case one after the other."""

    case: Case
    compute: Compute
    seed: int
    progress: Progress | None
    caches: list[ArrayFile] = field(default_factory=list)

    def all(self) -> Iterator[Control]:
        """Yield every control, missing ones with their reasons."""
        makers: dict[str, Callable[[], Control]] = {
            "untrained": self._untrained,
            "image_statistics": self._image_statistics,
            "metadata": self._metadata,
            "shuffled_labels": self._shuffled,
        }
        for name, make in makers.items():
            try:
                yield make()
            except EmbankError as error:  # the model's numbers stay
                yield Control(name, reason=f"{error.found}. {error.rule}", remedy=error.remedy)
        for name, scores in self.case.guesses().items():
            yield Control(name, scores)

    def _untrained(self) -> Control:
        other = untrained_of(self.case.features)
        detail = f"{other.features.title}{f'; {other.note}' * bool(other.note)}"
        return Control("untrained", self.case.run(other.features), detail)

    def _image_statistics(self) -> Control:
        features = self.case.features
        statistics = statistics_of(features, self.compute.threads, self.progress)
        if statistics.file is not None:
            self.caches.append(statistics.file)
        scores = self.case.run(statistics.features(features))
        return Control("image_statistics", scores, "size, mean, deviation, histogram of 32 bins")

    def _metadata(self) -> Control:
        features, columns = metadata_of(self.case.features, self.case.learned)
        return Control("metadata", self.case.run(features), f"columns {', '.join(columns)}")

    def _shuffled(self) -> Control:
        repeats = []
        for repeat in range(REPEATS):
            repeats.append(self.case.run(self.case.shuffled(self.seed * REPEATS + repeat)))
            if self.progress is not None:
                self.progress("shuffles of the labels", repeat + 1, REPEATS)
        return Control("shuffled_labels", mean_of(repeats), f"{REPEATS} shuffles", repeats=tuple(repeats))
