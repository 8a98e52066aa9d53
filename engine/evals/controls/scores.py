"""Scores of a model and of its controls in one form, and what follows from them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from engine.evals.common.validity import ValidityIssue, issue
from engine.kernels.codes import fill_singletons
from engine.kernels.intervals.cluster_robust import ClusterInterval, ratio_interval
from stores.json_types import Json, JsonObject

Numbers = Mapping[str, float]

#: Metric -> its name in sentences. Of all but the log loss larger is better.
WORDS = {
    "accuracy": "accuracy",
    "mean_per_class_accuracy": "balanced accuracy",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "log_loss": "log loss",
}
#: Control -> its name in sentences and tables.
TITLES = {
    "untrained": "untrained network",
    "image_statistics": "image statistics",
    "metadata": "metadata alone",
    "shuffled_labels": "shuffled labels",
    "majority_class": "majority class",
    "chance": "chance",
}
#: Differences of sums that rounding alone can make.
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Answers:
    """How the images tested were answered.

    Attributes:
        rows: intp [t], rows of the features.
        right: float64 [t], right answers of each; count: how many answers it had.
        draw: digest of what was drawn, e.g. episodes: only answers of the same draw are paired.
    """

    rows: NDArray[np.intp]
    right: NDArray[np.float64]
    count: NDArray[np.float64]
    draw: str = ""


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores on the images tested.

    Attributes:
        metrics: name -> value, NaN where undefined; of several findings the means.
        images: how many were tested.
        findings: finding -> its metrics, where there are several.
        answers: of single images; None where they are of several findings.
    """

    metrics: Numbers
    images: int
    findings: Mapping[str, Numbers] = field(default_factory=dict)
    answers: Answers | None = None


@dataclass(frozen=True, eq=False)
class Control:
    """A control's scores, or the reason why it has none.

    Attributes:
        name: of `TITLES`.
        scores: of repeats the means; None where the control is missing.
        detail: what it was made of, in a few words.
        difference: accuracy of the model less the control's, and its 95 % interval over patients (images
            where none are known); None where the two did not answer alike.
        repeats: scores of each repetition, where there are several.
        reason, remedy: why it is missing, and what to do.
    """

    name: str
    scores: Scores | None = None
    detail: str = ""
    difference: tuple[float, ClusterInterval] | None = None
    repeats: tuple[Scores, ...] = ()
    reason: str = ""
    remedy: str = ""

    def to_dict(self) -> JsonObject:
        """Return `{name, title, ...}` with the metrics, or `reason` and `remedy` of a missing one."""
        body: JsonObject = {"name": self.name, "title": TITLES[self.name]}
        if self.scores is None:
            return {**body, "missing": True, "reason": self.reason, "remedy": self.remedy}
        body |= {"missing": False, **self.scores.metrics, "images": self.scores.images}
        if self.detail:
            body["detail"] = self.detail
        if self.difference is not None:
            value, interval = self.difference
            body["difference"] = {"accuracy": value, **interval.to_dict()}
        if self.repeats:
            body["repeats"] = len(self.repeats)
            body["range"] = {name: _range(name, self.repeats) for name in self.scores.metrics}
        if self.scores.findings:
            body["findings"] = [{"label": name, **of} for name, of in self.scores.findings.items()]
        return body


def _range(name: str, repeats: Sequence[Scores]) -> JsonObject:
    values = [scores.metrics[name] for scores in repeats]
    return {"low": min(values), "high": max(values)}


@dataclass(frozen=True)
class Below:
    """A number of the model that a control's exceeds.

    Attributes:
        metric: of `WORDS`. value: the model's; control_value: the best control's, called `control`.
        finding: that it is of; "" for the evaluation's number.
    """

    metric: str
    value: float
    control: str
    control_value: float
    finding: str = ""

    @property
    def sentence(self) -> str:
        """Both numbers in words."""
        return f"{WORDS[self.metric]} {self.value:.3f} against {self.control_value:.3f}"


@dataclass(frozen=True, eq=False)
class Controls:
    """The controls of one result.

    Attributes:
        model: scores of the model.
        controls: one of each kind, missing ones included.
    """

    model: Scores
    controls: tuple[Control, ...]

    @property
    def below(self) -> tuple[Below, ...]:
        """The numbers of the model that are worse than the best control's, as point estimates."""
        return tuple(self._below())

    def _below(self) -> Iterator[Below]:
        present = [(control.name, control.scores) for control in self.controls if control.scores is not None]
        yield from _worse("", self.model.metrics, {name: scores.metrics for name, scores in present})
        for finding, metrics in self.model.findings.items():
            theirs = {name: scores.findings.get(finding, {}) for name, scores in present}
            yield from _worse(finding, metrics, theirs)

    @property
    def validity(self) -> tuple[ValidityIssue, ...]:
        """Issues of numbers below a control, of the evaluation and each finding, and not told from one."""
        own = self.below
        issues = [*self._not_told()]
        for subject in dict.fromkeys(one.finding for one in own):
            of = [one for one in own if one.finding == subject]
            clauses = []
            for name in dict.fromkeys(one.control for one in of):
                numbers = ", ".join(one.sentence for one in of if one.control == name)
                clauses.append(f"below {TITLES[name]} in {numbers}")
            text = f"The model is {'; '.join(clauses)}"
            issues.append(issue("below_control", text, len(of), subject=subject))
        return tuple(issues)

    def _not_told(self) -> Iterator[ValidityIssue]:
        """Yield an issue of the controls above which the accuracy is, but not beyond its interval."""
        clauses = []
        for control in self.controls:
            value, interval = control.difference or (math.nan, None)
            if interval is not None and value >= 0 and interval.low <= 0:
                bounds = f"{interval.low:+.3f} to {interval.high:+.3f}"
                clauses.append(f"{TITLES[control.name]} ({value:+.3f}, 95 % {bounds})")
        if clauses:
            text = f"The accuracy of the model cannot be told from that of {', '.join(clauses)}"
            yield issue("not_told_from_control", text, len(clauses))

    def to_dict(self) -> JsonObject:
        """Return `{controls, below_control}`."""
        below: list[Json] = [dict(vars(one)) for one in self.below]
        return {"controls": [control.to_dict() for control in self.controls], "below_control": below}


def _worse(finding: str, model: Numbers, controls: Mapping[str, Numbers]) -> Iterator[Below]:
    for metric in WORDS:
        value = model.get(metric, math.nan)
        sign = -1.0 if metric == "log_loss" else 1.0
        theirs = {name: of.get(metric, math.nan) for name, of in controls.items()}
        known = {name: number for name, number in theirs.items() if not math.isnan(number)}
        if math.isnan(value) or not known:
            continue
        best = max(known, key=lambda name: sign * known[name])
        if sign * value < sign * known[best] - _ROUNDING:
            yield Below(metric, value, best, known[best], finding)


def mean_of(repeats: Sequence[Scores]) -> Scores:
    """Return the mean of each number over repetitions; NaN where one of them is undefined."""
    first = repeats[0]
    findings = {
        finding: _means([scores.findings.get(finding, {}) for scores in repeats])
        for finding in first.findings
    }
    return Scores(_means([scores.metrics for scores in repeats]), first.images, findings)


def _means(several: Sequence[Numbers]) -> dict[str, float]:
    return {name: float(np.mean([numbers.get(name, math.nan) for numbers in several])) for name in several[0]}


def with_difference(control: Control, model: Scores, groups: NDArray[np.int64] | None) -> Control:
    """Return a control with the paired difference of accuracies, where both answered the same questions.

    The interval is that of the mean difference with the images of a patient together (`ratio_interval`).

    Args:
        groups: int64 [N], patients, negative where unknown; None where none are.
    """
    ours, theirs = model.answers, control.scores.answers if control.scores is not None else None
    if ours is None or theirs is None or ours.draw != theirs.draw:
        return control
    if not np.array_equal(ours.rows, theirs.rows) or not np.array_equal(ours.count, theirs.count):
        return control
    codes = np.full(int(ours.rows.max()) + 1, -1) if groups is None else groups
    unit = np.unique(fill_singletons(codes)[ours.rows], return_inverse=True)[1]
    totals, counts = (
        np.bincount(unit, weights=values).astype(np.float64)
        for values in (ours.right - theirs.right, ours.count)
    )
    return replace(control, difference=(float(totals.sum() / counts.sum()), ratio_interval(totals, counts)))
