"""Result of a finetuning: metrics of the test part as a probe has them, and the course of the training."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from engine.evals.common.predictions import Predictions
from engine.evals.common.result import Metric
from engine.evals.common.validity import ValidityIssue, issue
from engine.evals.common.validity_checks import failed_issues
from engine.evals.finetune.curve import Curve
from engine.evals.finetune.options import FinetuneOptions
from engine.evals.finetune.problem import Problem
from engine.evals.probe.multilabel import finding_issues, mean_of_defined
from engine.evals.probe.task import Task, metrics_of, tested
from engine.kernels.intervals.metrics_bootstrap import Percentiles, bootstrap_metrics
from engine.kernels.metrics import Evaluation, auroc
from stores.json_types import Json, JsonObject
from stores.parquet import Column

#: Name of the AUROC that the study's second script computes: of class decisions instead of scores.
HARD_AUROC = "auroc_of_decisions"


@dataclass(frozen=True, eq=False)
class Tested:
    """One task on the test part.

    Attributes:
        task: what was learned; its test rows are those that could be decoded.
        test: metrics.
        intervals: 95 % percentile intervals of the headline metrics; empty without bootstrap.
        probabilities: float64 [tests, K], in the order of `task.parts.test`.
        hard_auroc: AUROC of the class decisions, as published; None in mode `default`.
    """

    task: Task
    test: Evaluation
    intervals: Mapping[str, Percentiles]
    probabilities: NDArray[np.float64]
    hard_auroc: Metric | None = None

    @classmethod
    def of(
        cls,
        problem: Problem,
        task: Task,
        probabilities: NDArray[np.float64],
        options: FinetuneOptions,
    ) -> "Tested":
        """Compute metrics and intervals.

        Args:
            task: with the test rows of the probabilities.
            probabilities: [tests, K].
        """
        rows = task.parts.test
        truth, unseen = task.codes[rows], problem.unseen
        test = Evaluation.of(truth, probabilities, unseen=unseen)
        intervals: Mapping[str, Percentiles] = {}
        if options.bootstrap:
            intervals = bootstrap_metrics(
                truth,
                probabilities,
                problem.groups[rows],
                resamples=options.bootstrap,
                seed=options.seed,
                unseen=unseen,
            )
        hard = None
        if options.mode == "as-published":
            decisions = np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]
            value, reason = auroc(truth, decisions)
            hard = Metric(value, reason=reason)
        return cls(task, test, intervals, probabilities, hard)

    def metrics(self) -> dict[str, Metric]:
        """Return the headline metrics with their intervals."""
        extra = {} if self.hard_auroc is None else {HARD_AUROC: self.hard_auroc}
        return {**metrics_of(self.test, self.intervals), **extra}

    def body(self) -> JsonObject:
        """Return the metrics as a record has them."""
        body = tested(self.test, self.task, self.intervals)
        if self.hard_auroc is not None:
            body[HARD_AUROC] = self.hard_auroc.value
        return body


@dataclass(frozen=True, eq=False)
class Training:
    """The course of a training.

    Attributes:
        steps: updates made.
        epochs: times that the train part was shown, as a fraction.
        best_step: updates before the best validation.
        tested_step: updates before the weights that were tested.
        val_score: score of these weights on validation, as `select` names it.
        select: the score.
        curve: all validations.
        stopped: True if patience ended it before the last step.
        batch_size: images of an update, at most.
        parameters: number of trained numbers.
        seconds: of training, in all processes together.
        run: digest of all that the weights depend on.
        weights: path of the weights' file below the bank.
    """

    steps: int
    epochs: float
    best_step: int
    tested_step: int
    val_score: float
    select: str
    curve: Curve
    stopped: bool
    batch_size: int
    parameters: int
    seconds: float
    run: str
    weights: str


@dataclass(frozen=True, eq=False, repr=False)
class FinetuneResult:
    """Result of a finetuning.

    Attributes:
        problem: what was learned, and from which rows.
        tested: each task that was tested.
        training: its course.
        options: as given.
        failures: part -> code -> images that could not be decoded; of train, those that were met.
        own_notes: remarks of the run.
        stages: seconds by stage of this process.
    """

    problem: Problem
    tested: tuple[Tested, ...]
    training: Training
    options: FinetuneOptions
    failures: Mapping[str, Mapping[str, int]]
    own_notes: tuple[str, ...] = ()
    stages: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        accuracy, training = self.metrics()["accuracy"].value, self.training
        steps = f"weights after step {training.tested_step:,} of {training.steps:,}"
        return f"FinetuneResult({self.label!r}: accuracy {accuracy:.4f}; {steps})"

    @property
    def label(self) -> str:
        """The columns learned, with commas between them."""
        return self.problem.label

    @property
    def failed(self) -> int:
        """Number of images that could not be decoded."""
        return sum(sum(codes.values()) for codes in self.failures.values())

    @property
    def images(self) -> dict[str, int]:
        """Number of images of each part, those that failed included."""
        parts = self.problem.parts
        return {"train": len(parts.train), "val": len(parts.val), "test": len(parts.test)}

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for the reader, one sentence each."""
        return (*self.problem.parts.notes, *self.own_notes, *self._partial.values())

    @property
    def validity(self) -> tuple[ValidityIssue, ...]:
        """Issues of the parts and of failed images; those of a finding with its name as the subject."""
        issues = [*self.problem.parts.validity]
        if self.problem.several:
            for finding in self.tested:
                issues += [one.about(finding.task.name) for one in finding_issues(finding.task)]
        for unfit in self.problem.unfit:
            issues.append(issue("findings_left_out", f"{unfit.name} is left out: {unfit.reason}", unfit.name))
        for part, images in self.images.items():
            failed = sum(self.failures.get(part, {}).values())
            issues += failed_issues(failed, images, f"{part} images could not be decoded")
        return tuple(issues)

    @property
    def _partial(self) -> dict[str, str]:
        """Map each mean over findings that leaves out some of them to a sentence that says so."""
        sentences: dict[str, str] = {}
        if self.problem.several:
            headlines = [task.test.headline for task in self.tested]
            for name in headlines[0]:
                defined = sum(isfinite(headline[name]) for headline in headlines)
                if defined < len(headlines):
                    sentences[name] = f"{name} is the mean over {defined} of {len(headlines)} findings"
        return sentences

    def failures_of_record(self) -> JsonObject:
        """Return the images that failed by part and reason, without parts that have none."""
        return {part: dict(codes) for part, codes in self.failures.items() if codes}

    def metrics(self) -> dict[str, Metric]:
        """Return the headline metrics of the test part, accuracy first; means where there are findings."""
        if not self.problem.several:
            return self.tested[0].metrics()
        headlines = [task.test.headline for task in self.tested]
        partial = self._partial
        return {
            name: Metric(mean_of_defined([h[name] for h in headlines]), reason=partial.get(name, ""))
            for name in headlines[0]
        }

    def predictions(self) -> Predictions:
        """Return a row for each test image, with the columns of a probe's predictions."""
        if not self.problem.several:
            (only,) = self.tested
            return only.task.predictions(only.probabilities)
        rows = np.unique(np.concatenate([task.task.parts.test for task in self.tested]))
        by_name = {task.task.name: task for task in self.tested}
        columns: dict[str, Column] = {}
        for target in self.problem.targets:
            truth = target.codes[rows].astype(np.float32)
            truth[truth < 0] = np.nan
            predicted, score = np.full(len(rows), np.nan, np.float32), np.full(len(rows), np.nan)
            if task := by_name.get(target.column):
                places = np.searchsorted(rows, task.task.parts.test)
                predicted[places] = task.probabilities.argmax(axis=1)
                score[places] = task.probabilities[:, 1]
            name = target.column
            columns |= {f"truth.{name}": truth, f"predicted.{name}": predicted, f"score.{name}": score}
        return Predictions.of(rows, columns)

    def to_dict(self) -> JsonObject:
        """Return `{label, test, steps, best_step, val_score, lr, batch_size, curve, ...}`."""
        training, options = self.training, self.options
        body: JsonObject = {
            "label": self.label,
            "test": self._test(),
            "steps": training.steps,
            "best_step": training.best_step,
            "tested_step": training.tested_step,
            "val_score": training.val_score,
            "select": training.select,
            "stopped_early": training.stopped,
            "epochs": training.epochs,
            "max_steps": options.steps,
            "batch_size": training.batch_size,
            "lr": options.lr,
            "schedule": options.schedule,
            "curve": training.curve.to_dict(),
            "parameters": training.parameters,
            "run": training.run,
            "weights": training.weights,
            **self._facts(),
            "failed": self.failed,
            "failures": {part: dict(codes) for part, codes in self.failures.items()},
            "notes": [*self.notes],
            "stages": {name: round(value, 4) for name, value in self.stages.items()},
        }
        return body

    def _test(self) -> JsonObject:
        if not self.problem.several:
            return self.tested[0].body()
        return {name: metric.value for name, metric in self.metrics().items()}

    def _facts(self) -> JsonObject:
        parts = self.problem.parts
        targets: list[Json] = [target.to_dict() for target in self.problem.targets]
        facts: JsonObject = {
            "images": {**self.images},
            "masked": dict(parts.masked),
            "other_splits": dict(parts.others),
            "targets": targets,
        }
        if not self.problem.several:
            return {**facts, "classes": [*self.problem.tasks[0].classes]}
        findings: list[Json] = [{"label": task.task.name, "test": task.body()} for task in self.tested]
        findings += [finding.to_dict() for finding in self.problem.unfit]
        return {**facts, "multi_label": True, "evaluated": len(self.tested), "findings": findings}
