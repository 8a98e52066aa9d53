"""What is compared: one task of classes, several findings, or queries of few-shot episodes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.comparison.answers import Panel, codes_of
from engine.kernels.paired.delong import Components

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Task:
    """The answers of M models to one question about t images.

    Attributes:
        name: of the finding; "" where there is only one task.
        rows: intp [t], images of the panel.
        truth: int64 [t], class of each.
        classes: names of the K classes.
        right: bool [M, t].
        scores: float64 [M, t, K]; None where a metric does without.
        unseen: classes that no model could have learnt: their scores are 0.
        components: class -> its structural components, once they were computed.
    """

    name: str
    rows: NDArray[np.intp]
    truth: NDArray[np.int64]
    classes: tuple[str, ...]
    right: NDArray[np.bool_]
    scores: Floats | None
    unseen: tuple[int, ...] = ()
    components: dict[int, Components] = field(default_factory=dict)

    @property
    def counts(self) -> NDArray[np.int64]:
        """int64 [K], images of each class."""
        return np.bincount(self.truth, minlength=len(self.classes))


def class_task(panel: Panel, scored: bool, learnt: bool) -> Task:
    """Return the task of classes of records of probes and k-NN.

    Args:
        scored: read the scores.
        learnt: a class whose scores are all 0 was not seen in training.

    Raises:
        Refused: the records are of different labels or classes, or have no scores.
    """
    models = range(len(panel.answers))
    truth = panel.shared("truth")
    right = np.array([panel.column(model, "predicted") == truth for model in models])
    named = [sorted(own.names("score.")) for own in panel.answers]
    if scored and any(names != named[0] for names in named):
        other = next(model for model in models if named[model] != named[0])
        raise Refused(
            f"{panel.answers[other].name} has the classes {', '.join(named[other][:8])}, and "
            f"{panel.answers[0].name} has {', '.join(named[0][:8])}",
            "Scores are compared class by class",
            "run the evaluation of both models again with the same splits",
        )
    rows = np.arange(len(panel))
    if not scored:
        classes = sorted(set(truth.tolist()))
        return Task("", rows, codes_of(truth, classes), tuple(classes), right, None)
    classes = panel.answers[0].names("score.")
    if not classes:
        panel.column(0, "score.")  # refuses, and says why
    scores = np.stack(
        [np.stack([panel.column(m, f"score.{name}") for name in classes], axis=1) for m in models]
    ).astype(np.float64)
    blank = (scores == 0).all(axis=(0, 1))
    unseen = tuple(np.flatnonzero(blank).tolist()) if learnt else ()
    return Task("", rows, codes_of(truth, classes), tuple(classes), right, scores, unseen)


def finding_tasks(panel: Panel, notes: list[str]) -> list[Task]:
    """Return the tasks of records of several findings, without those that a model has no result for.

    Args:
        notes: gets a sentence for each finding that is left out.

    Raises:
        Refused: the records are of different labels, or no finding is left.
    """
    models, tasks = range(len(panel.answers)), []
    first = panel.answers[0].names("truth.")
    for name in first:
        lacking = [own.name for own in panel.answers if f"truth.{name}" not in own.table.column_names]
        if lacking:
            notes.append(f"{name} is left out: {lacking[0]} was not probed for it")
            continue
        truth = panel.shared(f"truth.{name}")
        rows = np.flatnonzero(~np.isnan(truth))
        score = np.array([panel.column(model, f"score.{name}")[rows] for model in models], np.float64)
        predicted = np.array([panel.column(model, f"predicted.{name}")[rows] for model in models])
        undefined = np.isnan(score).any(axis=1) if len(rows) else np.ones(len(score), np.bool_)
        if undefined.any():
            model = panel.answers[int(np.flatnonzero(undefined)[0])].name
            notes.append(f"{name} is left out: {model} has no result for it")
            continue
        codes = truth[rows].astype(np.int64)
        scores = np.stack([1 - score, score], axis=2)
        tasks.append(Task(name, rows, codes, ("0", "1"), predicted == codes, scores))
    if not tasks:
        raise Refused(
            "No finding has a result of all models",
            "Findings are compared where every model has one",
            "see `embank records show` for why, and probe again",
        )
    return tasks


@dataclass(frozen=True, eq=False)
class Queries:
    """Right answers of few-shot episodes.

    Attributes:
        queries, correct: float64 [M, n], of each image.
        episodes: float64 [M, E], accuracies; None where the models saw different episodes.
    """

    queries: Floats
    correct: Floats
    episodes: Floats | None


def queries_of(panel: Panel, episodes: Sequence[Floats] | None) -> Queries:
    """Return the right answers of few-shot records.

    Args:
        episodes: accuracies of each model in the same episodes, or None.
    """
    models = range(len(panel.answers))
    panel.shared("truth")
    queries, correct = (
        np.array([panel.column(model, name) for model in models], np.float64)
        for name in ("queries", "correct")
    )
    return Queries(queries, correct, None if episodes is None else np.stack(episodes))
