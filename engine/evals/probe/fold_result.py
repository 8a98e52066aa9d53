"""Result of a probe's cross-validation."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.evals.common.one_line import number
from engine.evals.common.predictions import Predictions, class_scores
from engine.evals.common.result import Metric
from engine.evals.common.validity import ValidityIssue
from engine.evals.probe.fold_options import Folds
from engine.evals.probe.task import ProbeResult, Task, metrics_of, stages_of, tested
from engine.kernels.intervals.metrics_bootstrap import Percentiles
from engine.kernels.metrics import Evaluation
from stores.json_types import Json, JsonObject


@dataclass(frozen=True)
class FoldResult:
    """The probe that was tested on one fold.

    Attributes:
        repeat, fold: from 0.
        result: without intervals.
    """

    repeat: int
    fold: int
    result: ProbeResult

    def to_dict(self) -> JsonObject:
        """Return `{repeat, fold, best_C, val_score, converged, images, test}`; `test` is the headline."""
        result = self.result
        images: JsonObject = {
            part: len(getattr(result.task.parts, part)) for part in ("train", "val", "test")
        }
        return {
            "repeat": self.repeat,
            "fold": self.fold,
            "best_C": result.best_C,
            "val_score": float(result.sweep.val_score[result.sweep.best]),
            "converged": result.converged,
            "images": images,
            "test": dict(result.test.headline),
        }


@dataclass(frozen=True)
class OverFolds:
    """A metric over folds.

    Attributes:
        mean, sd: over the folds in which it is defined; the standard deviation has n - 1 in its denominator.
        standard_error: of the mean, corrected for the training images that folds share (Nadeau and Bengio,
            "Inference for the Generalization Error", Machine Learning 52 (2003), 239-281, for repeated k-fold
            cross-validation by Bouckaert and Frank, PAKDD 2004): sd sqrt(1 / n + 1 / (k - 1)).
        folds: n, in which it is defined.
    """

    mean: float
    sd: float
    standard_error: float
    folds: int

    @classmethod
    def of(cls, values: NDArray[np.float64], k: int) -> "OverFolds":
        """Summarise values float64 [k x repeats], NaN where undefined."""
        defined = values[np.isfinite(values)]
        n = len(defined)
        mean = float(defined.mean()) if n else math.nan
        sd = float(defined.std(ddof=1)) if n > 1 else math.nan
        return cls(mean, sd, sd * math.sqrt(1 / n + 1 / (k - 1)) if n else math.nan, n)

    def to_dict(self) -> JsonObject:
        """Return all fields."""
        return {"mean": self.mean, "sd": self.sd, "standard_error": self.standard_error, "folds": self.folds}


@dataclass(frozen=True)
class FoldsResult:
    """Result of a cross-validation.

    Attributes:
        task: what was learned; its test part is all rows that were tested, and it has no other.
        folds: how they were cut.
        by_fold: the probes, by repeat and fold.
        rows: intp [n x repeats], row of each prediction, ascending within a repeat.
        repeat, fold: int [n x repeats].
        probabilities: float64 [n x repeats, K].
        test: metrics of the pooled predictions.
        intervals: of these, 95 % percentile intervals over patients, whose predictions of all repeats stay
            together.
        own_notes: remarks on the folds.
        validity: issues of all folds, and of single ones with their name as the subject.
    """

    task: Task
    folds: Folds
    by_fold: tuple[FoldResult, ...]
    rows: NDArray[np.intp]
    repeat: NDArray[np.int64]
    fold: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    test: Evaluation
    intervals: Mapping[str, Percentiles]
    own_notes: tuple[str, ...]
    validity: tuple[ValidityIssue, ...]

    def __repr__(self) -> str:
        accuracy = self.over_folds()["accuracy"]
        return (
            f"FoldsResult({self.task.name!r}: accuracy {number(accuracy.mean)}, sd {number(accuracy.sd)} "
            f"over {len(self.by_fold)} folds)"
        )

    @property
    def converged(self) -> bool:
        """True if every fit of every fold converged."""
        return all(one.result.converged for one in self.by_fold)

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for the reader, one sentence each."""
        return tuple(
            dict.fromkeys([*self.own_notes, *(note for one in self.by_fold for note in one.result.notes)])
        )

    @property
    def fits(self) -> JsonObject:
        """The convergence of each fold's sweep and refit: `{folds}`."""
        return {
            "folds": [{"repeat": one.repeat, "fold": one.fold, **one.result.fits} for one in self.by_fold]
        }

    def over_folds(self) -> dict[str, OverFolds]:
        """Return mean and deviation over folds of each headline metric."""
        headlines = [one.result.test.headline for one in self.by_fold]
        return {
            name: OverFolds.of(np.array([headline[name] for headline in headlines]), self.folds.folds)
            for name in headlines[0]
        }

    def metrics(self) -> dict[str, Metric]:
        """Return the headline metrics of the pooled predictions with their intervals."""
        return metrics_of(self.test, self.intervals)

    def predictions(self) -> Predictions:
        """Return a row for each image and repeat: truth, predicted class, probabilities, repeat and fold."""
        columns = class_scores(self.task.codes[self.rows], self.probabilities, self.task.classes)
        return Predictions.of(self.rows, {**columns, "repeat": self.repeat, "fold": self.fold})

    def to_dict(self) -> JsonObject:
        """Return `{label, test, folds, val_score, converged, objective, best_C, ...}`.

        `test` is of the pooled predictions; `val_score` is the mean over folds and `objective` the sum;
        `best_C` is null, since each fold has its own.
        """
        results = [one.result for one in self.by_fold]
        by_fold: list[Json] = [one.to_dict() for one in self.by_fold]
        stages: dict[str, float] = {}
        for result in results:
            for name, seconds in result.seconds.items():
                stages[name] = stages.get(name, 0.0) + seconds
        return {
            "label": self.task.name,
            "test": tested(self.test, self.task, self.intervals),
            "best_C": None,
            "select": results[0].sweep.select,
            "val_score": float(np.mean([result.sweep.val_score[result.sweep.best] for result in results])),
            "converged": self.converged,
            "objective": math.fsum(float(result.refit.fits.objective[0]) for result in results),
            "images": {"tested": len(self.task.parts.test)},
            "classes": [*self.task.classes],
            "masked": dict(self.task.parts.masked),
            "folds": {
                "folds": self.folds.folds,
                "repeats": self.folds.repeats,
                "metrics": {name: over.to_dict() for name, over in self.over_folds().items()},
                "by_fold": by_fold,
            },
            "notes": [*self.notes],
            "stages": stages_of(stages),
        }
