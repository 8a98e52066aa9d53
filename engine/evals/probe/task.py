"""The task of a probe and its result, in one form for fits made here and by the study's loop."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.evals.common.one_line import counted, number, within
from engine.evals.common.predictions import Predictions, class_scores
from engine.evals.common.result import Metric
from engine.evals.common.validity import ValidityIssue
from engine.evals.probe.calibration import Calibration
from engine.evals.probe.fitted import Fitted
from engine.evals.probe.operating import OperatingPoints
from engine.evals.probe.parts import Parts
from engine.evals.probe.selection import Select, Sweep
from engine.evals.probe.strata import Strata
from engine.evals.probe.study_protocol import Published, PublishedFit
from engine.kernels.intervals.metrics_bootstrap import Percentiles
from engine.kernels.metrics import Evaluation
from stores.json_types import JsonObject

#: Why the study's loop has no temperature.
NOT_SCALED = "the study scaled no probabilities: probe in the default mode"


@dataclass(frozen=True)
class Task:
    """What is learnt, and from which rows.

    Attributes:
        name: of the label column.
        classes: names, in the order of the codes.
        codes: int64 [N], class of each row; negative rows are in no part.
        parts: rows to train, validate and test on.
    """

    name: str
    classes: tuple[str, ...]
    codes: NDArray[np.int64]
    parts: Parts

    def predictions(self, probabilities: NDArray[np.float64]) -> Predictions:
        """Return truth, predicted class and the probability of each class, a row for each test image.

        Args:
            probabilities: [tests, K], in the order of `parts.test`.
        """
        rows = self.parts.test
        return Predictions.of(rows, class_scores(self.codes[rows], probabilities, self.classes))

    @property
    def facts(self) -> JsonObject:
        """`{images, classes, masked}`."""
        return {
            "images": {part: len(getattr(self.parts, part)) for part in ("train", "val", "test")},
            "classes": [*self.classes],
            "masked": dict(self.parts.masked),
        }


@dataclass(frozen=True)
class ProbeResult:
    """Result of a probe of one task.

    Attributes:
        task: what was learnt.
        sweep: all fits on the train part, and the chosen one.
        refit: the fit at the chosen C on train + validation; coefficients are for the features as given.
        test: metrics on the test part.
        intervals: 95 % percentile intervals of the headline metrics, by name; empty without bootstrap.
        probabilities: float64 [tests, K], in the order of `task.parts.test`.
        calibration: before and after temperature scaling.
        operating: sensitivity, specificity and predictive values; None with more than two classes.
        notes: remarks for the reader, one sentence each.
        seconds: by stage.
        validity: issues of the parts, the features, the choice of C and the fits.
        strata: metrics in strata of the test images.
    """

    task: Task
    sweep: Sweep
    refit: Fitted
    test: Evaluation
    intervals: Mapping[str, Percentiles]
    probabilities: NDArray[np.float64]
    calibration: Calibration
    operating: OperatingPoints | None
    notes: tuple[str, ...]
    seconds: Mapping[str, float]
    validity: tuple[ValidityIssue, ...] = ()
    strata: tuple[Strata, ...] = ()

    def __repr__(self) -> str:
        numbers, shown, groups = self.test.headline, [], ""
        for name, word in (("accuracy", "accuracy"), ("auroc", "AUROC")):
            value, interval = numbers[name], self.intervals.get(name)
            text = number(value) if interval is None else within(value, interval.low, interval.high)
            shown.append(f"{word} {text}")
            groups = groups if interval is None else f"95 % over {counted(interval.groups, 'group')}; "
        converged = "" if self.converged else ", not all fits converged"
        return (
            f"ProbeResult({self.task.name!r}: {', '.join(shown)}; {groups}C = {self.best_C:g}{converged}; "
            f"{counted(len(self.task.parts.test), 'image')} tested, {len(self.task.classes):,} classes)"
        )

    @property
    def unseen(self) -> list[int]:
        """Classes that no row trained on had."""
        return self.refit.unseen

    @property
    def best_C(self) -> float:
        """The chosen C."""
        return float(self.sweep.C[self.sweep.best])

    @property
    def converged(self) -> bool:
        """True if every fit of the sweep and the refit converged."""
        return bool(self.sweep.converged.all() and self.refit.fits.converged.all())

    def metrics(self) -> dict[str, Metric]:
        """Return the headline metrics of the test part with their intervals."""
        return metrics_of(self.test, self.intervals)

    def predictions(self) -> Predictions:
        """Return a row for each test image: truth, predicted class, probability of each class."""
        return self.task.predictions(self.probabilities)

    @property
    def fits(self) -> JsonObject:
        """The convergence of the sweep in short, and of the refit: `{sweep, refit}`."""
        sweep = self.sweep
        return {
            "sweep": _in_short(sweep.C, sweep.converged, sweep.gradient_norm, sweep.iterations),
            "refit": self._refit,
        }

    @property
    def _refit(self) -> JsonObject:
        fits = self.refit.fits
        return {
            "objective": float(fits.objective[0]),
            "gradient_norm": float(fits.gradient_norm[0]),
            "iterations": int(fits.iterations[0]),
            "converged": bool(fits.converged[0]),
        }

    def to_dict(self) -> JsonObject:
        """Return `{label, test, best_C, val_score, converged, objective, sweep, refit, ...}`."""
        return {
            "label": self.task.name,
            "test": tested(self.test, self.task, self.intervals),
            "best_C": self.best_C,
            "weight_decay": 1 / self.best_C,
            "select": self.sweep.select,
            "val_score": float(self.sweep.val_score[self.sweep.best]),
            "flat": self.sweep.flat,
            "converged": self.converged,
            "objective": float(self.refit.fits.objective[0]),
            "refit": self._refit,
            "sweep": self.sweep.to_dict(),
            "calibration": self.calibration.to_dict(),
            **({"operating": self.operating.to_dict()} if self.operating else {}),
            **strata_of(self.strata),
            **self.task.facts,
            "notes": [*self.notes],
            "stages": stages_of(self.seconds),
        }


@dataclass(frozen=True)
class PublishedResult:
    """Result of the study's loop on one task.

    Attributes:
        task: what was learnt.
        select: the validation score that C was chosen by.
        published: the loop's fits and probabilities.
        intervals, strata: as of `ProbeResult`.
    """

    task: Task
    select: Select
    published: Published
    intervals: Mapping[str, Percentiles]
    strata: tuple[Strata, ...] = ()

    def __repr__(self) -> str:
        accuracy = number(self.published.test.headline["accuracy"])
        converged = "" if self.converged else ", not all fits converged"
        return f"PublishedResult({self.task.name!r}: accuracy {accuracy}; C = {self.best_C:g}{converged})"

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """float64 [tests, K], in the order of `task.parts.test`."""
        return self.published.probabilities

    @property
    def unseen(self) -> list[int]:
        """Classes that no row trained on had."""
        return [*self.published.unseen]

    @property
    def best_C(self) -> float:
        """The chosen C as the study counts it, 1 / weight decay."""
        return self.published.best_C

    @property
    def converged(self) -> bool:
        """True if every fit of the loop and the final one converged."""
        return all(fit.converged for fit in (*self.published.sweep, self.published.final))

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for the reader, one sentence each."""
        return (*self.task.parts.notes, *([self.published.convergence] if self.converged else []))

    @property
    def validity(self) -> tuple[ValidityIssue, ...]:
        """Issues of the parts, the choice of C and the fits."""
        return (*self.task.parts.validity, *self.published.validity)

    def metrics(self) -> dict[str, Metric]:
        """Return the headline metrics of the test part with their intervals."""
        return metrics_of(self.published.test, self.intervals)

    def predictions(self) -> Predictions:
        """Return a row for each test image: truth, predicted class, probability of each class."""
        return self.task.predictions(self.published.probabilities)

    @property
    def fits(self) -> JsonObject:
        """The convergence of the sweep in short, and of the final fit: `{sweep, refit}`."""
        fits = self._by_C
        return {
            "sweep": _in_short(
                [1 / fit.weight_decay for fit in fits],
                [fit.converged for fit in fits],
                [fit.gradient_norm for fit in fits],
                [fit.iterations for fit in fits],
            ),
            "refit": _fit(self.published.final),
        }

    @property
    def _by_C(self) -> list[PublishedFit]:
        return sorted(self.published.sweep, key=lambda fit: -fit.weight_decay)

    def to_dict(self) -> JsonObject:
        """Return what `ProbeResult.to_dict` does, with the study's C and sweep, and `convergence`."""
        loop = self.published
        fits = self._by_C
        best = loop.sweep[loop.best]
        by_name: JsonObject = {name: [_fit(fit)[name] for fit in fits] for name in _fit(fits[0])}
        return {
            "label": self.task.name,
            "test": tested(loop.test, self.task, self.intervals),
            "best_C": loop.best_C,
            "weight_decay": best.weight_decay,
            "select": self.select,
            "val_score": best.val_score,
            "converged": self.converged,
            "objective": loop.final.objective,
            "refit": _fit(loop.final),
            "sweep": {
                "C": [1 / fit.weight_decay for fit in fits],
                "val_score": [fit.val_score for fit in fits],
                **by_name,
            },
            "convergence": loop.convergence,
            "calibration": {"temperature": math.nan, "reason": NOT_SCALED},
            **strata_of(self.strata),
            **self.task.facts,
            "notes": [*self.notes],
            "stages": stages_of(loop.seconds),
        }


def _in_short(
    strengths: ArrayLike, converged: ArrayLike, gradient_norms: ArrayLike, iterations: ArrayLike
) -> JsonObject:
    """Summarise a sweep's convergence."""
    stuck = np.asarray(strengths)[~np.asarray(converged, np.bool_)].tolist()
    return {
        "fits": len(np.asarray(strengths)),
        "not_converged": stuck,
        "largest_gradient_norm": float(np.max(gradient_norms)),
        "iterations": int(np.sum(iterations)),
    }


def _fit(fit: PublishedFit) -> JsonObject:
    return {
        "objective": fit.objective,
        "gradient_norm": fit.gradient_norm,
        "iterations": fit.iterations,
        "converged": fit.converged,
        "excess": fit.excess,
    }


def metrics_of(test: Evaluation, intervals: Mapping[str, Percentiles]) -> dict[str, Metric]:
    """Return the headline metrics, each with its interval and why it is undefined or partial."""
    reasons = {
        "auroc": test.classification.auroc_reason,
        "average_precision": test.average_precision_reason,
        "log_loss": test.log_loss_reason,
    }
    metrics = {}
    for name, value in test.headline.items():
        interval = intervals.get(name)
        low, high = (math.nan, math.nan) if interval is None else (interval.low, interval.high)
        reason = reasons.get(name, "") or ("" if interval is None else interval.reason)
        metrics[name] = Metric(value, low, high, reason)
    return metrics


def strata_of(strata: Sequence[Strata]) -> JsonObject:
    """Return `{strata}` if there are any."""
    return {"strata": [own.to_dict() for own in strata]} if strata else {}


def tested(test: Evaluation, task: Task, intervals: Mapping[str, Percentiles]) -> JsonObject:
    """Return the metrics of a test part as a record has them."""
    body: JsonObject = test.to_dict(task.classes)
    if intervals:
        body["intervals"] = {name: interval.to_dict() for name, interval in intervals.items()}
    return body


def stages_of(seconds: Mapping[str, float]) -> JsonObject:
    """Return seconds by stage, rounded."""
    return {name: round(value, 4) for name, value in seconds.items()}
