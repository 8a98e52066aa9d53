"""Results of classification by nearest neighbours."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.evals.common.one_line import counted, number
from engine.evals.common.predictions import Predictions, class_scores
from engine.evals.common.result import Metric
from engine.evals.common.validity import ValidityIssue
from engine.kernels.metrics import Classification
from engine.kernels.neighbours import Neighbours
from stores.json_types import JsonObject
from stores.parquet import Column


@dataclass(frozen=True, eq=False)
class Scores:
    """How the images tested were classified with the k of the headline.

    Attributes:
        shares: float64 [tests, classes], share of the votes; the largest is predicted, of ties the first.
        classes: int64 [classes], their codes, ascending.
        truth: int64 [tests], codes.
    """

    shares: NDArray[np.float64]
    classes: NDArray[np.int64]
    truth: NDArray[np.int64]

    def columns(self, names: tuple[str, ...] | None) -> dict[str, Column]:
        """Return `truth`, `predicted` and `score.CLASS` of each class, unless these are too many.

        Args:
            names: what the codes stand for; None if for themselves.
        """
        texts = [str(code) if names is None else names[code] for code in self.classes.tolist()]
        return class_scores(np.searchsorted(self.classes, self.truth), self.shares, texts)


@dataclass(frozen=True)
class KnnResult:
    """Result of a classification by nearest neighbours.

    Attributes:
        by_k: metrics of each k, in the order requested; the first is the headline.
        neighbours: of each test row, as positions in `train_rows`.
        test_rows, train_rows: intp, rows of the features that were classified, and that voted.
        predicted: int64 [tests, len(by_k)], class codes.
        masked: rows of these parts left out, by reason: `failed`, `unlabelled`; where there are any,
            `only_own_patient`, test rows whose patient has all images that could vote.
        classes: how many classes occur.
        unseen: classes of test rows that no train row has.
        names: of the class codes; None where labels are numbers, which stand for themselves.
        group_disjoint: whether a patient's images had no vote for one another.
        notes: remarks for the reader, one sentence each.
        scores: of the images tested.
        others: split -> its rows that were not used. split_notes: which split each word was matched to.
        validity: issues of the classes and patients.
    """

    by_k: dict[int, Classification]
    neighbours: Neighbours
    test_rows: NDArray[np.intp]
    train_rows: NDArray[np.intp]
    predicted: NDArray[np.int64]
    masked: dict[str, int]
    classes: int
    unseen: int
    names: tuple[str, ...] | None = None
    group_disjoint: bool = False
    notes: tuple[str, ...] = ()
    scores: Scores | None = None
    others: Mapping[str, int] = field(default_factory=dict)
    split_notes: tuple[str, ...] = ()
    validity: tuple[ValidityIssue, ...] = ()

    @property
    def backend(self) -> str:
        """Backend that searched the neighbours: `array` or `faiss`."""
        return self.neighbours.backend

    def metrics(self) -> dict[str, Metric]:
        """Return accuracy, mean per-class accuracy and AUROC with the k of the headline."""
        headline = next(iter(self.by_k.values()))
        return {
            "accuracy": Metric(headline.accuracy),
            "mean_per_class_accuracy": Metric(headline.mean_per_class_accuracy),
            "auroc": Metric(headline.auroc, reason=headline.auroc_reason),
        }

    def predictions(self) -> Predictions | None:
        """Return a row for each image tested: truth, prediction, scores."""
        return (
            None if self.scores is None else Predictions.of(self.test_rows, self.scores.columns(self.names))
        )

    def __repr__(self) -> str:
        k, test = next(iter(self.by_k.items()))
        return (
            f"KnnResult(accuracy {number(test.accuracy)}, balanced "
            f"{number(test.mean_per_class_accuracy)}, AUROC {number(test.auroc)} at k = {k}; "
            f"{counted(len(self.test_rows), 'image')} tested, {len(self.train_rows):,} voting, "
            f"{self.classes:,} classes)"
        )

    def to_dict(self) -> JsonObject:
        """Return `{k, test, by_k, best, images, ...}`; `best` is chosen on the test rows themselves."""
        headline = next(iter(self.by_k))
        best = max(self.by_k, key=lambda k: (self.by_k[k].accuracy, -k))
        return {
            "k": headline,
            "test": self.by_k[headline].to_dict(),
            "by_k": [{"k": k, **metrics.to_dict()} for k, metrics in self.by_k.items()],
            "best": {"k": best, "accuracy": self.by_k[best].accuracy, "chosen_on": "test"},
            "train_images": len(self.train_rows),
            "test_images": len(self.test_rows),
            "classes": self.classes,
            "unseen_classes": self.unseen,
            "masked": dict(self.masked),
            "backend": self.neighbours.backend,
            "searched_again": self.neighbours.undecided,
            "group_disjoint": self.group_disjoint,
            "notes": list(self.notes),
        }
