"""AUROC and average precision of one class against the rest, for many weights of patients at once.

Rows are sorted once. Runs of rows between two changes of class are summed by one sparse product with the
weights of the patients, and what precedes each run by small triangular products, so that a block of resamples
stays in the cache. Weights are counts: in float32 all sums are exact up to 16 million rows.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float64]
Weights = NDArray[np.floating]

#: Runs whose running sums are one triangular product.
_BLOCK = 32


@dataclass(frozen=True, eq=False)
class RankedRows:
    """Rows of one class and of the rest, sorted by score.

    Attributes:
        positive: bool [n].
        scores: [n], larger is likelier positive.
        units: int [n], patient of each row, from 0.
        count: number of patients, also of those without rows here.
    """

    positive: NDArray[np.bool_]
    scores: NDArray[np.floating]
    units: NDArray[np.integer]
    count: int

    def auroc(self, weights: Weights) -> Floats:
        """Return the AUROC [r] for weights of patients [G, r]; NaN where a class has no weight."""
        negative, positive = self._area_runs.sums(weights)
        before, total = _running(negative)
        won = before * positive
        if len(self._tied):
            flat = (part.reshape(-1, weights.shape[1])[self._tied] for part in (negative, positive))
            won_by_ties = 0.5 * np.multiply(*flat).sum(axis=0, dtype=np.float64)
        else:
            won_by_ties = np.zeros(weights.shape[1])
        with np.errstate(invalid="ignore", divide="ignore"):
            area: Floats = (_total(won) - won_by_ties) / (total * _total(positive))
        return area

    def average_precision(self, weights: Weights) -> Floats:
        """Return the average precision [r] for weights of patients [G, r]; NaN as `auroc`."""
        negative, positive = self._precision_runs.sums(weights)
        false, _ = _running(negative)
        true, total = _running(positive)
        false += true
        np.maximum(false, 1, out=false)  # no weight so far: the term is 0
        true *= positive
        true /= false
        with np.errstate(invalid="ignore", divide="ignore"):
            average = _total(true) / total
        rest: Floats = self._negative_units @ weights
        return np.where(rest > 0, average, np.nan)

    @cached_property
    def _groups(self) -> tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.int64]]:
        """Place of each row's score among the distinct ones, and the positives and rows of each."""
        _, places, sizes = np.unique(self.scores, return_inverse=True, return_counts=True)
        return places, np.bincount(places, weights=self.positive).astype(np.int64), sizes

    @cached_property
    def _mixed(self) -> NDArray[np.bool_]:
        _, positives, sizes = self._groups
        return (positives > 0) & (positives < sizes)

    @cached_property
    def _area_run_of(self) -> NDArray[np.int64]:
        """Run of each distinct score: negatives and the positives above them, or one score of both."""
        _, positives, _ = self._groups
        mixed, some = self._mixed, positives > 0
        begins = mixed[1:] | mixed[:-1] | (~some[1:] & some[:-1])
        return np.concatenate([[0], np.cumsum(begins)])

    @cached_property
    def _tied(self) -> NDArray[np.int64]:
        """Runs in which positives and negatives tie."""
        return self._area_run_of[self._mixed]

    @cached_property
    def _area_runs(self) -> "_Runs":
        return _Runs.of(self, self._area_run_of[self._groups[0]], np.ones(len(self.scores), np.bool_))

    @cached_property
    def _precision_runs(self) -> "_Runs":
        """A run for each distinct score of positives, from above, with the negatives down to it."""
        places, positives, _ = self._groups
        above = np.cumsum(positives[::-1] > 0)[::-1]  # distinct scores of positives from here upwards
        run: NDArray[np.int64] = above[places] - (positives[places] > 0)
        used: NDArray[np.bool_] = run < above[0]
        return _Runs.of(self, run, used)

    @cached_property
    def _negative_units(self) -> NDArray[np.floating]:
        rows = np.bincount(self.units[~self.positive], minlength=self.count)
        return rows.astype(_precision(len(self.scores)))


@dataclass(frozen=True, eq=False)
class _Runs:
    """The sparse matrix [2 q, G] of the number of rows of each run and patient: negatives, then positives."""

    matrix: Any
    blocks: int

    @classmethod
    def of(cls, rows: RankedRows, run: NDArray[np.integer], used: NDArray[np.bool_]) -> "_Runs":
        blocks = -(-(int(run[used].max(initial=0)) + 1) // _BLOCK)
        places = run + np.where(rows.positive, blocks * _BLOCK, 0)
        ones = np.ones(int(used.sum()), _precision(len(run)))
        shape = (2 * blocks * _BLOCK, rows.count)
        matrix = sparse.csr_array((ones, (places[used], rows.units[used])), shape=shape)
        return cls(matrix, blocks)

    def sums(self, weights: Weights) -> Any:
        """Return the weights of negatives and of positives in each run, [2, blocks, _BLOCK, r]."""
        return (self.matrix @ weights.astype(self.matrix.dtype, copy=False)).reshape(
            2, self.blocks, _BLOCK, weights.shape[1]
        )


def _running(runs: Any) -> tuple[Any, Floats]:
    """Return the sums of each run and all before it [blocks, _BLOCK, r], and of all float64 [r]."""
    within = np.matmul(np.tri(_BLOCK, dtype=runs.dtype), runs)
    ends = within[:, -1].cumsum(axis=0, dtype=runs.dtype)
    within[1:] += ends[:-1, None]
    return within, ends[-1].astype(np.float64)


def _total(runs: Any) -> Floats:
    """Return the sum over runs, float64 [r]."""
    total: Floats = runs.sum(axis=1).sum(axis=0, dtype=np.float64)
    return total


def _precision(rows: int) -> Any:
    return np.float32 if rows <= 1 << 22 else np.float64
