"""Results of a few-shot evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.common.features import Usable
from engine.evals.common.groups import NO_GROUP
from engine.evals.common.one_line import counted, within
from engine.evals.common.predictions import Predictions, Table
from engine.evals.common.result import Metric
from engine.evals.common.validity import ValidityIssue
from engine.evals.fewshot.options import Protocol
from engine.kernels import intervals
from engine.kernels.intervals import Bootstrap
from engine.kernels.intervals.cluster_robust import ClusterInterval, ratio_interval
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
        patients: its interval over the patients queried.
    """

    mean: float
    ci95: float
    patients: ClusterInterval

    def to_dict(self) -> JsonObject:
        """Return `{difference, ci95, low, high, patients}`; `low` and `high` are over episodes."""
        return {
            "difference": self.mean,
            "ci95": self.ci95,
            "low": self.mean - self.ci95,
            "high": self.mean + self.ci95,
            "patients": self.patients.to_dict(),
        }


@dataclass(frozen=True)
class FewShotResult:
    """Result of a few-shot protocol for one model.

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
        notes: remarks for the reader, one sentence each.
        bootstrap: interval over patients (groups), if requested.
        seconds: by stage.
        images: `truth`, `queries` and `correct` of each image that was a query.
        drawable: bool [N], images that could be drawn.
        usable: images with a label and an embedding in the split, and counts of the others.
        others: split -> its rows that were not used. split_notes: which split each word was matched to.
        backend: that classified the queries.
        validity: issues of the classes and patients.
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
    images: Table | None = None
    drawable: NDArray[np.bool_] | None = None
    usable: Usable | None = None
    others: Mapping[str, int] = field(default_factory=dict)
    split_notes: tuple[str, ...] = ()
    backend: str = "array"
    validity: tuple[ValidityIssue, ...] = ()

    def __repr__(self) -> str:
        low, high = self.accuracy - self.ci95, self.accuracy + self.ci95
        task = f"{self.protocol.ways}-way {self.protocol.n_shot}-shot, {self.protocol.distance}"
        return (
            f"FewShotResult(accuracy {within(self.accuracy, low, high)}, 95 % over "
            f"{counted(len(self.per_episode), 'episode')}; {task}; {counted(self.used, 'image')})"
        )

    @property
    def patients(self) -> ClusterInterval:
        """95 % interval of the accuracy over the patients queried (see `ratio_interval`)."""
        return (
            ClusterInterval.undefined(NO_GROUP)
            if self.per_patient is None
            else ratio_interval(*self.per_patient)
        )

    def minus(self, other: "FewShotResult") -> Difference:
        """Return the difference of the accuracies on the same episodes, with intervals.

        The 95 % intervals are over episodes and over patients.

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
        patients = ClusterInterval.undefined(NO_GROUP)
        if self.per_patient is not None and other.per_patient is not None:
            patients = ratio_interval(self.per_patient[0] - other.per_patient[0], self.per_patient[1])
        return Difference(over.mean, over.ci95, patients)

    def metrics(self) -> dict[str, Metric]:
        """Return the accuracy with its interval over episodes."""
        return {"accuracy": Metric(self.accuracy, self.accuracy - self.ci95, self.accuracy + self.ci95)}

    def predictions(self) -> Predictions | None:
        """Return `episodes` with the accuracy of each, and `images` with the counts of each query image."""
        if self.images is None:
            return None
        episodes = {"episode": np.arange(len(self.per_episode)), "accuracy": self.per_episode}
        return Predictions({"episodes": Table(episodes), "images": self.images})

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
