"""What a few-shot evaluation returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.common.groups import NO_GROUP
from engine.evals.common.labels import Labels
from engine.evals.common.one_line import counted, within
from engine.evals.common.predictions import Predictions, Table, coded
from engine.evals.common.result import Metric
from engine.evals.fewshot.options import Protocol
from engine.kernels import intervals
from engine.kernels.cluster_robust import Clustered, ratio
from engine.kernels.intervals import Bootstrap
from stores.json_types import JsonObject

#: What `as-published` cannot take from stored features.
NOT_REPRODUCED = (
    "preprocessing: it is the bank's (the study squashed its small sets to 257 x 257)",
    "the very episodes: they came from the study's torch version, another for each architecture",
    "the pool's limit applies to every set of more than 10,001 images, CIFAR-10 too",
)


@dataclass(frozen=True)
class Difference:
    """Difference of two accuracies on the same episodes.

    Attributes:
        mean: a fraction; ci95: half width of its 95 % interval over episodes.
        patients: its interval over the patients asked.
    """

    mean: float
    ci95: float
    patients: Clustered

    def to_dict(self) -> JsonObject:
        """`{difference, ci95, low, high, patients}`; `low` and `high` are over episodes."""
        return {
            "difference": self.mean,
            "ci95": self.ci95,
            "low": self.mean - self.ci95,
            "high": self.mean + self.ci95,
            "patients": self.patients.to_dict(),
        }


@dataclass(frozen=True, eq=False)
class ImageCounts:
    """How often single images were queries, and were classified rightly.

    Attributes:
        rows: intp [n], images that were queries at all, ascending.
        labels: of these images.
        queries, correct: int64 [n].
    """

    rows: NDArray[np.intp]
    labels: Labels
    queries: NDArray[np.int64]
    correct: NDArray[np.int64]

    def table(self) -> Table:
        """Return `truth`, `queries` and `correct` of each image."""
        counts = {"queries": self.queries.astype(np.int32), "correct": self.correct.astype(np.int32)}
        return Table({"truth": coded(self.labels.codes, self.labels.names), **counts}, {"": self.rows})


@dataclass(frozen=True)
class Selection:
    """Rows that were not used, by reason; those outside the split count as nothing else.

    Attributes:
        failed, unlabelled, outside: numbers of rows.
        others: split -> its rows that were not asked for.
        notes: which split was taken for which word.
    """

    failed: int
    unlabelled: int
    outside: int
    others: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> JsonObject:
        """Return `{failed, unlabelled, outside_split, masked, other_splits, split_notes}`."""
        return {
            "failed": self.failed,
            "unlabelled": self.unlabelled,
            "outside_split": self.outside,
            "masked": self.failed + self.unlabelled,
            "other_splits": dict(self.others),
            "split_notes": list(self.notes),
        }


@dataclass(frozen=True)
class FewShotResult:
    """What a protocol found with one model.

    Attributes:
        protocol: as it was run, its `n_way` a number and `group_disjoint` true or false.
        accuracy: mean of the episodes' accuracies, a fraction; ci95: half width of its 95 % interval over
            episodes.
        per_episode: float64 [episodes].
        used: images that could be drawn. masked: rows without label or embedding.
        classes: label of each row and column of `confusion`; only classes large enough are drawn.
        confusion: int64 [classes, classes], queries by true (row) and predicted class; None beyond 2,000.
        episodes_digest: SHA-256 of the drawn rows: results with equal digests are paired.
        per_patient: float64 [2, G], right answers and queries of each patient; None where no usable image has
            a group.
        notes: what a reader must know, one sentence each.
        bootstrap: interval over patients (groups), if asked for.
        seconds: by stage.
        images: counts of single images. rows: intp, those that could be drawn.
        selection: rows that were not used.
        backend: that classified the queries.
    """

    protocol: Protocol
    accuracy: float
    ci95: float
    per_episode: NDArray[np.float64]
    used: int
    masked: int
    classes: tuple[int | str, ...]
    confusion: NDArray[np.int64] | None
    episodes_digest: str
    per_patient: NDArray[np.float64] | None = None
    notes: tuple[str, ...] = ()
    bootstrap: Bootstrap | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    images: ImageCounts | None = None
    rows: NDArray[np.intp] | None = None
    selection: Selection = field(default_factory=lambda: Selection(0, 0, 0))
    backend: str = "array"

    def __repr__(self) -> str:
        low, high = self.accuracy - self.ci95, self.accuracy + self.ci95
        task = f"{self.protocol.ways}-way {self.protocol.n_shot}-shot, {self.protocol.distance}"
        return (
            f"FewShotResult(accuracy {within(self.accuracy, low, high)}, 95 % over "
            f"{counted(len(self.per_episode), 'episode')}; {task}; {counted(self.used, 'image')})"
        )

    @property
    def patients(self) -> Clustered:
        """95 % interval of the accuracy over the patients asked (`engine.kernels.cluster_robust.ratio`)."""
        return Clustered.undefined(NO_GROUP) if self.per_patient is None else ratio(*self.per_patient)

    def minus(self, other: "FewShotResult") -> Difference:
        """Difference of the accuracies on the same episodes, with 95 % intervals over episodes and patients.

        Raises:
            Refused: the two saw different episodes.
        """
        if self.episodes_digest != other.episodes_digest:
            raise Refused(
                "Two results from different episodes",
                "A paired difference needs the same episodes",
                "evaluate both models in one call",
            )
        over = intervals.paired(self.per_episode, other.per_episode)
        patients = Clustered.undefined(NO_GROUP)
        if self.per_patient is not None and other.per_patient is not None:
            patients = ratio(self.per_patient[0] - other.per_patient[0], self.per_patient[1])
        return Difference(over.mean, over.ci95, patients)

    def metrics(self) -> dict[str, Metric]:
        """Return the accuracy with its interval over episodes."""
        return {"accuracy": Metric(self.accuracy, self.accuracy - self.ci95, self.accuracy + self.ci95)}

    def predictions(self) -> Predictions | None:
        """Return `episodes` with the accuracy of each, and `images` with the counts of each query image."""
        if self.images is None:
            return None
        episodes = {"episode": np.arange(len(self.per_episode)), "accuracy": self.per_episode}
        return Predictions({"episodes": Table(episodes), "images": self.images.table()})

    def to_dict(self) -> JsonObject:
        """Return the protocol, and what a record keeps of the result."""
        body: JsonObject = {
            **vars(self.protocol),
            "accuracy": self.accuracy,
            "ci95": self.ci95,
            "images": self.used,
            "masked": self.masked,
            "episodes_digest": self.episodes_digest,
            "patients": self.patients.to_dict(),
            "notes": list(self.notes),
        }
        if self.bootstrap is not None:
            body["bootstrap"] = self.bootstrap.to_dict()
        if self.protocol.published:
            body["not_reproduced"] = list(NOT_REPRODUCED)
        return body
