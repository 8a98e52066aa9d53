"""Several findings at once: one logistic regression each, fitted together.

Every finding has its own best C, metrics and masks: an image that is uncertain or blank for one takes part
in the others. A finding that cannot be learnt or chosen is left out with its reason. The summary is the plain
mean over the others. Features are standardised by all rows trained on, whatever their masks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.probe import solvers
from engine.evals.probe.evaluate import (
    Clock,
    ProbeOptions,
    ProbeResult,
    Progress,
    Task,
    examine,
    notes_on,
    part_of,
)
from engine.evals.probe.fitted import Fitted, swept
from engine.evals.probe.parts import Parts
from engine.evals.probe.selection import Sweep
from engine.evals.probe.targets import Target, together
from engine.kernels.standardize import Moments

_KNOWN = np.arange(2)


@dataclass(frozen=True)
class Unfit:
    """A finding without result, and why."""

    name: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        return {"label": self.name, "reason": self.reason}


@dataclass(frozen=True)
class FindingsResult:
    """What came out.

    Attributes:
        findings: in the order asked.
        notes: on all of them.
        seconds: by stage, of all findings together.
    """

    findings: tuple[ProbeResult | Unfit, ...]
    notes: tuple[str, ...]
    seconds: dict[str, float]

    @property
    def fitted(self) -> list[ProbeResult]:
        return [each for each in self.findings if isinstance(each, ProbeResult)]

    def to_dict(self) -> dict[str, Any]:
        """`{label, findings, test, val_score, converged, objective, best_C, ...}`.

        `test` and `val_score` are means over the findings that could be evaluated, each metric over those
        where it is defined; `objective` is the sum; `best_C` is null, since each finding has its own.
        """
        done = self.fitted
        headlines = [each.test.headline for each in done]
        test = {name: _mean([one[name] for one in headlines]) for name in headlines[0]}
        chosen = [float(each.sweep.val_score[each.sweep.best]) for each in done]
        return {
            "label": ", ".join(
                each.task.name if isinstance(each, ProbeResult) else each.name for each in self.findings
            ),
            "multi_label": True,
            "test": test,
            "evaluated": len(done),
            "best_C": None,
            "select": done[0].sweep.select,
            "val_score": _mean(chosen),
            "converged": all(each.converged for each in done),
            "objective": math.fsum(float(each.refit.fits.objective[0]) for each in done),
            "findings": [each.to_dict() for each in self.findings],
            "notes": self._notes(headlines),
            "stages": {name: round(value, 4) for name, value in self.seconds.items()},
        }

    def _notes(self, headlines: Sequence[dict[str, float]]) -> list[str]:
        """Which findings, or which of their metrics, are not in the means."""
        unfit = [each for each in self.findings if isinstance(each, Unfit)]
        notes = [*self.notes, *(f"{each.name} is left out: {each.reason}" for each in unfit)]
        for name in headlines[0]:
            defined = sum(math.isfinite(one[name]) for one in headlines)
            if defined < len(headlines):
                notes.append(f"{name} is the mean over {defined} of {len(headlines)} findings")
        return notes


def probe_findings(
    features: NDArray[Any],
    targets: Sequence[Target],
    found: Parts,
    options: ProbeOptions,
    groups: NDArray[np.integer[Any]],
    on_progress: Progress | None = None,
) -> FindingsResult:
    """Probe findings; see the module.

    Args:
        features: [N, d].
        targets: of two classes each.
        found: rows with an embedding and at least one finding that is not masked.
        options: `select` None is `auroc`.
        groups: int [N], of patients, negative where unknown.

    Raises:
        Refused: not one finding can be probed.
    """
    clock, select = Clock(), options.select or "auroc"
    tasks = [_task(target, found) for target in targets]
    unfit = {task.name: reason for task in tasks if (reason := _cannot(task))}
    able = [task for task in tasks if task.name not in unfit]
    matrix = together(targets)[:, [task.name not in unfit for task in tasks]]
    moments = Moments.of(features, found.train) if options.standardise else None
    clock.lap("standardise")
    every = _fit(features, matrix, found.train, options.C, moments, options, on_progress) if able else []
    clock.lap("sweep")
    sweeps: dict[str, Sweep] = {}
    for task, fitted in zip(able, every, strict=True):
        rows = task.parts.val
        try:
            sweeps[task.name], _ = swept(fitted, features, rows, task.codes[rows], select)
        except Refused as error:
            unfit[task.name] = error.found
    clock.lap("validate")
    if not sweeps:
        raise Refused(
            "Not one finding can be probed: " + "; ".join(f"{name}: {why}" for name, why in unfit.items()),
            "A finding needs positive and negative images in train and validation, and images in test",
            "check the columns, the policies for uncertain and blank cells, and the splits",
        )
    refits = _refits(features, matrix, able, sweeps, np.sort(found.refit), options)
    clock.lap("refit")
    results: list[ProbeResult | Unfit] = []
    for task in tasks:
        if task.name in unfit:
            results.append(Unfit(task.name, unfit[task.name]))
            continue
        notes = list(notes_on(features, task, sweeps[task.name], None))
        own = Clock()
        results.append(
            examine(features, task, sweeps[task.name], refits[task.name], groups, options, notes, own)
        )
    clock.lap("test")
    shared = (moments.note,) if moments and moments.constant else ()
    return FindingsResult(tuple(results), shared, clock.seconds)


def _task(target: Target, found: Parts) -> Task:
    """A finding with the rows of each part that it does not mask."""
    rows = {part: getattr(found, part) for part in ("train", "val", "test")}
    kept = {part: each[target.codes[each] >= 0] for part, each in rows.items()}
    here = sum(len(rows[part]) - len(kept[part]) for part in rows)
    parts = replace(
        found, **kept, notes=(), masked={**found.masked, "unlabelled": found.masked["unlabelled"] + here}
    )
    return Task(target.column, target.classes, target.codes, parts)


def _cannot(task: Task) -> str:
    """Why a finding cannot be learnt or tested, or ""."""
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
    moments: Moments | None,
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
    return [Fitted(each, _KNOWN, 2) for each in fits]


def _refits(
    features: NDArray[Any],
    matrix: NDArray[np.int8],
    able: Sequence[Task],
    sweeps: dict[str, Sweep],
    rows: NDArray[np.intp],
    options: ProbeOptions,
) -> dict[str, Fitted]:
    """Findings that chose the same C are fitted together."""
    moments = Moments.of(features, rows) if options.standardise else None
    chosen = {name: float(sweep.C[sweep.best]) for name, sweep in sweeps.items()}
    found: dict[str, Fitted] = {}
    for C in sorted(set(chosen.values())):
        at = [i for i, task in enumerate(able) if chosen.get(task.name) == C]
        fits = _fit(features, matrix[:, at], rows, [C], moments, options)
        found |= {able[i].name: each for i, each in zip(at, fits, strict=True)}
    return found


def _mean(values: Sequence[float]) -> float:
    """Of the values that are defined; NaN if none is."""
    defined = [value for value in values if math.isfinite(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan
