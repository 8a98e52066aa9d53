"""Drawing of episodes block by block, and counts of each model's predictions."""

import hashlib
import time
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.evals.fewshot.options import Protocol
from engine.evals.fewshot.predictors import Predictor
from engine.kernels.codes import Rows
from engine.kernels.episodes import Episodes, Sampler

#: Drawn rows that a block of episodes may have; digests are of one block after another, so it never changes.
BLOCK_ROWS = 4_000_000
#: Most classes for which a confusion matrix is kept.
MOST_CONFUSED = 2000


class Clock:
    """Seconds of each stage, with the classification of each model counted separately."""

    def __init__(self) -> None:
        self._last, self._shared = time.perf_counter(), dict[str, float]()
        self._own: dict[str, float] = {}

    def lap(self, stage: str, model: str | None = None) -> None:
        now = time.perf_counter()
        spent, into = now - self._last, self._shared if model is None else self._own
        key = stage if model is None else model
        into[key] = into.get(key, 0.0) + spent
        self._last = now

    def of(self, model: str) -> dict[str, float]:
        """Return the stages that all models share, and the kernel's time of this model."""
        stages = {**self._shared, "kernel": self._own.get(model, 0.0)}
        return {name: round(seconds, 6) for name, seconds in stages.items()}


class Tally:
    """Counts of one model over all episodes."""

    def __init__(self, episodes: int, classes: int, rows: int) -> None:
        self.accuracies = np.empty(episodes, np.float64)
        self.confusion = np.zeros((classes, classes), np.int64) if classes <= MOST_CONFUSED else None
        self.correct = np.zeros(rows, np.int64)

    def add(self, start: int, drawn: Episodes, predicted: NDArray[np.int16]) -> None:
        right = predicted == np.arange(predicted.shape[1])[:, None]
        self.accuracies[start : start + len(drawn)] = right.mean(axis=(1, 2))
        if self.confusion is not None:
            predicted_classes = np.take_along_axis(
                drawn.classes[:, :, None], predicted.astype(np.int64), axis=1
            )
            cells = drawn.classes[:, :, None] * len(self.confusion) + predicted_classes
            self.confusion += np.bincount(cells.ravel(), minlength=self.confusion.size).reshape(
                self.confusion.shape
            )
        self.correct += np.bincount(drawn.query[right], minlength=len(self.correct))


class Run:
    """A run that draws episodes block by block and has each model predict them.

    Attributes:
        protocol, pools, data_set, groups, rows: that the episodes are drawn by; groups only if they are kept
            apart.
        digest: SHA-256 of the drawn rows.
        queries: int64 [rows], how often each row was a query.
        tallies: model -> its counts.
    """

    def __init__(
        self, protocol: Protocol, pools: Sequence[Rows], data_set: str, groups: NDArray[np.int64] | None,
        rows: int,
    ) -> None:  # fmt: skip
        self.protocol, self.pools, self.data_set, self.rows = protocol, pools, data_set, rows
        self.groups = groups if protocol.group_disjoint else None
        self.digest = hashlib.sha256()
        self.queries = np.zeros(rows, np.int64)
        self.tallies: dict[str, Tally] = {}

    def go(self, predictors: Mapping[str, Predictor], clock: Clock) -> None:
        """Draw all episodes, and predict and count them."""
        p = self.protocol
        self.tallies = {name: Tally(p.episodes, len(self.pools), self.rows) for name in predictors}
        sampler = Sampler(self.pools, p.identity(self.data_set), self.groups)
        step = max(1, BLOCK_ROWS // (p.ways * (p.n_shot + p.n_query)))
        for start in range(0, p.episodes, step):
            drawn = sampler.draw(min(step, p.episodes - start))
            self.digest.update(drawn.digest_bytes)
            self.queries += np.bincount(drawn.query.ravel(), minlength=self.rows)
            clock.lap("sampling")
            for name, predict in predictors.items():
                predicted = predict(drawn)
                clock.lap("kernel", name)
                self.tallies[name].add(start, drawn, predicted)
                clock.lap("counting")
