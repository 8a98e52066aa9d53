"""What the controls of each evaluation share: the parts as they were, scores, chance, and shuffled labels."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.catalogue import EVALUATIONS
from engine.evals.common.compute import Compute
from engine.evals.common.features import Features
from engine.evals.common.labels import Labels
from engine.evals.controls.columns import with_columns
from engine.evals.controls.scores import WORDS, Answers, Numbers, Scores
from engine.kernels.episodes import Stream
from engine.kernels.metrics import Classification, Evaluation

if TYPE_CHECKING:
    from engine.evals.fewshot.options import Options as FewShotOptions
    from engine.evals.fewshot.result import FewShotResult
    from engine.evals.neighbours.options import ClassifyOptions
    from engine.evals.neighbours.result import KnnResult
    from engine.evals.probe.options import Options as ProbeOptions
    from engine.evals.probe.result import Result as ProbeResult

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


class Case(Protocol):
    """One evaluation that has run, as its controls need it."""

    @property
    def model(self) -> Scores:
        """Scores of the model."""

    @property
    def features(self) -> Features:
        """The model's features, with labels and parts as the evaluation used them."""

    @property
    def learned(self) -> tuple[str, ...]:
        """Columns that are learned, and so are no metadata."""

    def run(self, features: Features) -> Scores:
        """Evaluate other features of the same images in the same way. Raises Refused."""

    def shuffled(self, seed: int) -> Features:
        """Return the model's features, the labels that are learned from permuted within their part."""

    def guesses(self) -> Mapping[str, Scores]:
        """Return scores of the majority class and of chance, those that the evaluation has."""


def case_of(kind: str, features: Features, options: Any, result: Any, compute: Compute) -> Case:
    """Return the case of a result.

    Args:
        kind: `probe`, `knn` or `fewshot`.
        options, result: of the evaluation, as its `Options` and `Result`.

    Raises:
        Refused: another kind.
    """
    if kind not in _CASES:
        raise Refused(f"controls of {kind}", f"{', '.join(_CASES)} have controls", "evaluate by one of these")
    return _CASES[kind](features, options, result, compute)


def permuted(codes: Codes, parts: Sequence[NDArray[np.intp]], seed: int) -> Codes:
    """Return codes [N] whose rows are permuted within each part; equal seeds give equal permutations.

    Args:
        parts: disjoint rows; all others stay.
    """
    stream, mixed = Stream(hashlib.sha256(f"embank shuffle 1 {seed}".encode()).digest()[:16]), codes.copy()
    for rows in parts:
        mixed[rows] = codes[rows[np.argsort(stream.uniform(len(rows)), kind="stable")]]
    return mixed


@dataclass(frozen=True, eq=False)
class ProbeCase:
    """A linear probe, its parts pinned to those of the result, without low-shot curves and intervals."""

    original: Features
    options: "ProbeOptions"
    result: "ProbeResult"
    compute: Compute

    @property
    def model(self) -> Scores:
        return self._scores(self.result)

    @property
    def features(self) -> Features:
        codes = np.full(len(self.original), -1, np.int64)
        for code, part in enumerate(_PARTS):
            codes[getattr(self.result.parts, part)] = code
        return with_columns(self.original, {"split": Labels(codes, _PARTS)})

    @property
    def learned(self) -> tuple[str, ...]:
        return tuple(target.column for target in self.result.targets)

    def run(self, features: Features) -> Scores:
        splits = type(self.options.splits)(*_PARTS, mode=self.options.splits.mode)
        options = replace(self.options, splits=splits, low_shot=None, strata=(), bootstrap=0)
        return self._scores(_evaluate("probe", features, options, self.compute))

    def shuffled(self, seed: int) -> Features:
        pinned, parts = self.features, [self.result.parts.train, self.result.parts.val]
        changed = {}
        for name in self.options.findings or ("label",):
            labels = pinned.column(name)
            changed[name] = Labels(permuted(labels.codes, parts, seed), labels.names)
        return with_columns(pinned, changed)

    def guesses(self) -> Mapping[str, Scores]:
        of_tasks: dict[str, dict[str, dict[str, float]]] = {"majority_class": {}, "chance": {}}
        for task in (one.task for one in self.result.tasks):
            truth, unseen = task.codes[task.parts.test], task.parts.unseen
            counts = np.bincount(_labelled(task.codes[task.parts.refit]), minlength=len(task.classes))
            prior = np.tile(counts / counts.sum(), (len(truth), 1))
            metrics = _compared(Evaluation.of(truth, prior, unseen=unseen))
            of_tasks["majority_class"][task.name] = metrics
            of_tasks["chance"][task.name] = _chance(truth, counts > 0, metrics)
        return {name: self._together(of) for name, of in of_tasks.items()}

    def _together(self, of_tasks: Mapping[str, Numbers], answers: Answers | None = None) -> Scores:
        images = len(self.result.parts.test)
        if not self.options.findings:
            (metrics,) = of_tasks.values()
            return Scores(metrics, images, answers=answers)
        names = next(iter(of_tasks.values()))
        means = {name: _mean([of[name] for of in of_tasks.values()]) for name in names}
        return Scores(means, images, of_tasks)

    def _scores(self, result: Any) -> Scores:
        tasks = {one.task.name: getattr(one, "published", one) for one in result.tasks}
        metrics = {name: _compared(of.test) for name, of in tasks.items()}
        if self.options.findings:
            return replace(self._together(metrics), images=len(result.parts.test))
        (task,), (of,) = [one.task for one in result.tasks], tasks.values()
        rows = np.asarray(task.parts.test)
        right = of.probabilities.argmax(axis=1) == task.codes[rows]
        return self._together(metrics, Answers(rows, right.astype(np.float64), np.ones(len(rows))))


#: Parts of a probe.
_PARTS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class KnnCase:
    """A classification by nearest neighbours, with the k of its headline."""

    original: Features
    options: "ClassifyOptions"
    result: "KnnResult"
    compute: Compute

    @property
    def model(self) -> Scores:
        return self._scores(self.result)

    @property
    def features(self) -> Features:
        return self.original

    @property
    def learned(self) -> tuple[str, ...]:
        return (self.original.label or "label",)

    def run(self, features: Features) -> Scores:
        k = next(iter(self.result.by_k))
        options = replace(self.options, k=(k,), group_disjoint=self.result.group_disjoint)
        return self._scores(_evaluate("knn", features, options, self.compute))

    def shuffled(self, seed: int) -> Features:
        labels = self.original.labels
        codes = permuted(labels.codes, [self.result.train_rows], seed)
        return with_columns(self.original, {"label": Labels(codes, labels.names)})

    def guesses(self) -> Mapping[str, Scores]:
        codes, rows = self.original.labels.codes, self.result.test_rows
        both = np.concatenate([codes[self.result.train_rows], codes[rows]])
        names, places = np.unique(both, return_inverse=True)
        voters, truth = places[: len(self.result.train_rows)], places[len(self.result.train_rows) :]
        counts = np.bincount(voters, minlength=len(names))
        prior = Classification.of(truth, np.tile(counts / counts.sum(), (len(truth), 1)))
        majority = {
            "accuracy": prior.accuracy,
            "mean_per_class_accuracy": prior.mean_per_class_accuracy,
            "auroc": prior.auroc,
        }
        chance = _chance(truth, counts > 0, majority)
        return {"majority_class": Scores(majority, len(truth)), "chance": Scores(chance, len(truth))}

    def _scores(self, result: Any) -> Scores:
        metrics = {name: metric.value for name, metric in result.metrics().items()}
        right = (result.predicted[:, 0] == result.scores.truth).astype(np.float64)
        return Scores(metrics, len(right), answers=Answers(result.test_rows, right, np.ones(len(right))))


@dataclass(frozen=True, eq=False)
class FewShotCase:
    """A few-shot protocol, on the images that all models of the command have."""

    original: Features
    options: "FewShotOptions"
    result: "FewShotResult"
    compute: Compute

    @property
    def model(self) -> Scores:
        return self._scores(self.result)

    @property
    def features(self) -> Features:
        ok = np.zeros(len(self.original), np.bool_)
        ok[self._rows] = True
        return replace(self.original, ok=ok)

    @property
    def _rows(self) -> NDArray[np.intp]:
        assert self.result.usable is not None
        return self.result.usable.rows

    @property
    def learned(self) -> tuple[str, ...]:
        return (self.original.label or "label",)

    def run(self, features: Features) -> Scores:
        ways, apart = self.result.protocol.n_way, self.result.protocol.group_disjoint
        options = replace(self.options, n_way=ways, group_disjoint=apart, bootstrap=0)
        return self._scores(_evaluate("fewshot", features, options, self.compute))

    def shuffled(self, seed: int) -> Features:
        """Return the features with the labels of all usable images permuted: episodes have no fixed parts."""
        labels = self.original.labels
        codes = permuted(labels.codes, [self._rows], seed)
        return with_columns(self.features, {"label": Labels(codes, labels.names)})

    def guesses(self) -> Mapping[str, Scores]:
        """Return chance alone: the queries of an episode are as many of each class."""
        return {"chance": Scores({"accuracy": 1 / self.result.protocol.ways}, self.result.used)}

    def _scores(self, result: Any) -> Scores:
        images = result.images
        right, count = (images.columns[name].astype(np.float64) for name in ("correct", "queries"))
        answers = Answers(images.images[""], right, count, result.episodes_digest)
        return Scores({"accuracy": result.accuracy}, result.used, answers=answers)


_CASES: Mapping[str, Callable[..., Case]] = {"probe": ProbeCase, "knn": KnnCase, "fewshot": FewShotCase}


def _evaluate(kind: str, features: Features, options: Any, compute: Compute) -> Any:
    return EVALUATIONS[kind].load().evaluate(features, options, compute)


def _compared(test: Evaluation) -> dict[str, float]:
    return {name: test.headline[name] for name in WORDS}


def _labelled(codes: Codes) -> Codes:
    return codes[codes >= 0]


def _chance(truth: Codes, known: NDArray[np.bool_], majority: Mapping[str, float]) -> dict[str, float]:
    """Return the expected metrics of a class drawn uniformly from those learned.

    Args:
        truth: [n] classes. known: bool [K], classes that are learned; others are never drawn.
        majority: metrics of the class frequencies, for those of constant scores: AUROC, average precision.
    """
    classes, present = int(known.sum()), np.unique(truth)
    chance = {
        **majority,
        "accuracy": float(known[truth].mean()) / classes,
        "mean_per_class_accuracy": float(known[present].mean()) / classes,
    }
    if "log_loss" in majority:
        chance["log_loss"] = math.nan if math.isnan(majority["log_loss"]) else math.log(classes)
    return chance


def _mean(values: Sequence[float]) -> float:
    """Return the mean of the defined values; NaN if there are none."""
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan
