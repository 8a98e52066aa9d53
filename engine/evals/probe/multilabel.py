"""Several findings at once: one logistic regression each, fitted together.

Every finding has its own best C, metrics and masks: an image that is uncertain or blank for one takes part
in the others. A finding that cannot be learnt, or whose C cannot be chosen, is left out with its reason. The
summary is the plain mean over the others. Features are standardised by all rows trained on, whatever their
masks.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.common.predictions import Predictions
from engine.evals.common.result import Metric
from engine.evals.common.validity import ValidityIssue, issue
from engine.evals.common.validity_checks import class_issues
from engine.evals.probe import solvers
from engine.evals.probe.fitted import Fitted, swept
from engine.evals.probe.options import ProbeOptions
from engine.evals.probe.parts import Parts
from engine.evals.probe.selection import Sweep
from engine.evals.probe.single import (
    Clock,
    Progress,
    TrainFit,
    constant_issues,
    examine,
    fit_issues,
    part_of,
)
from engine.evals.probe.targets import Target, together
from engine.evals.probe.task import ProbeResult, Task, stages_of
from engine.kernels.standardize import Scaler
from stores.json_types import JsonObject
from stores.parquet import Column

_KNOWN = np.arange(2)


@dataclass(frozen=True)
class Unfit:
    """A finding without a result, and the reason."""

    name: str
    reason: str

    def to_dict(self) -> JsonObject:
        """Return `{label, reason}`."""
        return {"label": self.name, "reason": self.reason}


@dataclass(frozen=True)
class FindingsResult:
    """Result of a probe of several findings.

    Attributes:
        findings: in the order requested.
        own_issues: of the parts and features, which they share.
        seconds: by stage, of all findings together.
        targets: of the findings, in the same order.
        test: intp, test images with at least one finding that is not masked, ascending.
    """

    findings: tuple[ProbeResult | Unfit, ...]
    own_issues: tuple[ValidityIssue, ...]
    seconds: Mapping[str, float]
    targets: tuple[Target, ...]
    test: NDArray[np.intp]

    @property
    def fitted(self) -> list[ProbeResult]:
        """The findings that have a result."""
        return [finding for finding in self.findings if isinstance(finding, ProbeResult)]

    @property
    def converged(self) -> bool:
        """True if every fit of every finding converged."""
        return all(finding.converged for finding in self.fitted)

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for the reader: which metrics' means leave out findings."""
        return tuple(self._partial_means.values())

    @property
    def validity(self) -> tuple[ValidityIssue, ...]:
        """Issues of all findings, those of one with its name as the subject."""
        issues = [*self.own_issues]
        for finding in self.findings:
            if isinstance(finding, Unfit):
                text = f"{finding.name} is left out: {finding.reason}"
                issues.append(issue("findings_left_out", text, finding.name))
            else:
                issues += [one.about(finding.task.name) for one in finding.validity]
        return tuple(issues)

    @property
    def _headlines(self) -> list[dict[str, float]]:
        return [finding.test.headline for finding in self.fitted]

    @property
    def _partial_means(self) -> dict[str, str]:
        """Map each metric whose mean leaves out some findings to a sentence that says so."""
        headlines, sentences = self._headlines, {}
        for name in headlines[0]:
            defined = sum(math.isfinite(headline[name]) for headline in headlines)
            if defined < len(headlines):
                sentences[name] = f"{name} is the mean over {defined} of {len(headlines)} findings"
        return sentences

    def metrics(self) -> dict[str, Metric]:
        """Return the mean over the findings of each headline metric; there is no interval of a mean."""
        headlines, partial = self._headlines, self._partial_means
        return {
            name: Metric(
                mean_of_defined([headline[name] for headline in headlines]), reason=partial.get(name, "")
            )
            for name in headlines[0]
        }

    def predictions(self) -> Predictions:
        """Return, for each test image, `truth.F`, `predicted.F` and `score.F` of each finding F.

        Truth and prediction are 0 or 1, the score is the probability of 1; all three are NaN where the
        finding is masked for the image, the latter two also where the finding has no result.
        """
        columns: dict[str, Column] = {}
        for finding, target in zip(self.findings, self.targets, strict=True):
            truth = target.codes[self.test].astype(np.float32)
            truth[truth < 0] = np.nan
            predicted, score = np.full(len(truth), np.nan, np.float32), np.full(len(truth), np.nan)
            if isinstance(finding, ProbeResult):
                places = np.searchsorted(self.test, finding.task.parts.test)
                predicted[places] = finding.probabilities.argmax(axis=1)
                score[places] = finding.probabilities[:, 1]
            name = target.column
            columns |= {f"truth.{name}": truth, f"predicted.{name}": predicted, f"score.{name}": score}
        return Predictions.of(self.test, columns)

    def to_dict(self) -> JsonObject:
        """Return `{label, findings, test, val_score, converged, objective, best_C, ...}`.

        `test` and `val_score` are means over the findings that could be evaluated, each metric over those
        where it is defined; `objective` is the sum; `best_C` is null, since each finding has its own.
        """
        done = self.fitted
        best_scores = [float(finding.sweep.val_score[finding.sweep.best]) for finding in done]
        return {
            "label": ", ".join(target.column for target in self.targets),
            "multi_label": True,
            "test": {name: metric.value for name, metric in self.metrics().items()},
            "evaluated": len(done),
            "best_C": None,
            "select": done[0].sweep.select,
            "val_score": mean_of_defined(best_scores),
            "converged": self.converged,
            "objective": math.fsum(float(finding.refit.fits.objective[0]) for finding in done),
            "findings": [finding.to_dict() for finding in self.findings],
            "notes": [*self.notes],
            "stages": stages_of(self.seconds),
        }


def probe_findings(
    features: NDArray[Any],
    targets: Sequence[Target],
    shared_parts: Parts,
    options: ProbeOptions,
    groups: NDArray[np.integer[Any]],
    on_progress: Progress | None = None,
) -> FindingsResult:
    """Probe several findings together; see the module.

    Args:
        features: [N, d].
        targets: of two classes each.
        shared_parts: rows with an embedding and at least one finding that is not masked.
        options: `select` None is `auroc`.
        groups: int [N], of patients, negative where unknown.

    Raises:
        Refused: not one finding can be probed.
    """
    clock, select = Clock(), options.select or "auroc"
    tasks = [finding_task(target, shared_parts) for target in targets]
    unfit = {task.name: reason for task in tasks if (reason := unfit_reason(task))}
    able = [task for task in tasks if task.name not in unfit]
    matrix = together(targets)[:, [task.name not in unfit for task in tasks]]
    moments = Scaler.of(features, shared_parts.train) if options.standardise else None
    clock.lap("standardise")
    fits: list[Fitted] = []
    if able:
        fits = _fit(features, matrix, shared_parts.train, options.C, moments, options, on_progress)
    clock.lap("sweep")
    sweeps: dict[str, Sweep] = {}
    train_fits: dict[str, TrainFit] = {}
    for task, fitted in zip(able, fits, strict=True):
        rows = task.parts.val
        try:
            sweeps[task.name], _ = swept(fitted, features, rows, task.codes[rows], select)
        except Refused as error:
            unfit[task.name] = error.found
            continue
        train_fits[task.name] = TrainFit.of(fitted, features, task, sweeps[task.name])
    clock.lap("validate")
    if not sweeps:
        raise Refused(
            "Not one finding can be probed: " + "; ".join(f"{name}: {why}" for name, why in unfit.items()),
            "A finding needs positive and negative images in train and validation, and images in test",
            "check the columns, the policies for uncertain and blank cells, and the splits",
        )
    refits = _refits(features, matrix, able, sweeps, np.sort(shared_parts.refit), options)
    clock.lap("refit")
    results: list[ProbeResult | Unfit] = []
    for task in tasks:
        if task.name in unfit:
            results.append(Unfit(task.name, unfit[task.name]))
            continue
        sweep, refit = sweeps[task.name], refits[task.name]
        issues = [*finding_issues(task), *fit_issues(features, task, sweep, refit, None)]
        about = (train_fits[task.name], groups, options)
        results.append(examine(features, task, sweep, refit, *about, (), issues, Clock()))
    clock.lap("test")
    shared = (*shared_parts.validity, *(constant_issues(moments) if moments else ()))
    return FindingsResult(tuple(results), shared, clock.seconds, tuple(targets), shared_parts.test)


def finding_task(target: Target, shared_parts: Parts) -> Task:
    """Return a finding as a task, with the rows of each part that it does not mask."""
    rows = {part: getattr(shared_parts, part) for part in ("train", "val", "test")}
    unmasked = {part: own[target.codes[own] >= 0] for part, own in rows.items()}
    here = sum(len(rows[part]) - len(unmasked[part]) for part in rows)
    masked = {**shared_parts.masked, "unlabelled": shared_parts.masked["unlabelled"] + here}
    return Task(
        target.column,
        target.classes,
        target.codes,
        replace(shared_parts, **unmasked, notes=(), validity=(), masked=masked),
    )


def finding_issues(task: Task) -> Iterator[ValidityIssue]:
    """Yield issues of a finding's positive and negative images in each part."""
    parts = {part: task.codes[getattr(task.parts, part)] for part in ("train", "val", "test")}
    return class_issues(parts, task.classes)


def unfit_reason(task: Task) -> str:
    """Return why a finding cannot be learnt or tested, or ""."""
    for part, needed in (("train", 2), ("val", 1), ("test", 1)):
        rows = getattr(task.parts, part)
        classes = len(np.unique(task.codes[rows]))
        if classes < needed:
            return f"{classes} of 2 classes among {len(rows)} {part} images"
    return ""


def _fit(
    features: NDArray[Any],
    matrix: NDArray[np.int8],
    rows: NDArray[np.intp],
    C: Sequence[float],
    moments: Scaler | None,
    options: ProbeOptions,
    on_progress: Progress | None = None,
) -> list[Fitted]:
    fits = solvers.solve_many(
        features,
        matrix,
        C,
        rows=rows,
        moments=moments,
        options=options,
        on_progress=part_of(on_progress, "fits"),
    )
    return [Fitted(fit, _KNOWN, 2) for fit in fits]


def _refits(
    features: NDArray[Any],
    matrix: NDArray[np.int8],
    able: Sequence[Task],
    sweeps: dict[str, Sweep],
    rows: NDArray[np.intp],
    options: ProbeOptions,
) -> dict[str, Fitted]:
    """Refit on train + validation; fit findings that chose the same C together."""
    moments = Scaler.of(features, rows) if options.standardise else None
    C_of = {name: float(sweep.C[sweep.best]) for name, sweep in sweeps.items()}
    refits: dict[str, Fitted] = {}
    for C in sorted(set(C_of.values())):
        columns = [i for i, task in enumerate(able) if C_of.get(task.name) == C]
        fits = _fit(features, matrix[:, columns], rows, [C], moments, options)
        refits |= {able[i].name: fit for i, fit in zip(columns, fits, strict=True)}
    return refits


def mean_of_defined(values: Sequence[float]) -> float:
    """Return the mean of the values that are finite; NaN if none is."""
    defined = [value for value in values if math.isfinite(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan
