"""Fits of one task by whichever backend, with their columns in the order of the task's classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.probe.selection import Select, Sweep, choose, quality
from engine.kernels.logistic.solver import Fits

#: Bytes of probabilities held at a time; the features are read once for all fits that share a block.
_BLOCK_BYTES = 1 << 28
#: A classifier is constant if the probabilities of all rows differ by no more than this.
CONSTANT = 1e-9


@dataclass(frozen=True)
class Fitted:
    """Fits at R values of C that know some of K classes.

    Attributes:
        fits: as a backend gave them.
        known: int64 [k], ascending; the class of each column of their scores.
        classes: K.
    """

    fits: Fits
    known: NDArray[np.int64]
    classes: int

    @property
    def unseen(self) -> list[int]:
        """Classes that no row trained on had."""
        return [c for c in range(self.classes) if c not in self.known]

    def probabilities(
        self, features: NDArray[Any], rows: NDArray[np.intp], which: Sequence[int] = (0,)
    ) -> NDArray[np.float64]:
        """Return class probabilities of some fits, float64 [len(which), n, K].

        They are 0 for classes that no row trained on had.
        """
        scores = self.fits.path_scores(features, rows, which)
        if len(self.known) == self.classes:
            return scores
        of_all_classes = np.zeros((*scores.shape[:2], self.classes))
        of_all_classes[..., self.known] = scores
        return of_all_classes


def chosen_probabilities(
    fitted: Fitted, features: NDArray[Any], rows: NDArray[np.intp], sweep: Sweep
) -> NDArray[np.float64]:
    """Return the class probabilities of the chosen fit, float64 [n, K], for rows of the features."""
    which = int(np.argsort(fitted.fits.C)[sweep.best])
    (probabilities,) = fitted.probabilities(features, rows, [which])
    return np.asarray(probabilities, np.float64)


def swept(
    fitted: Fitted,
    features: NDArray[Any],
    rows: NDArray[np.intp],
    truth: NDArray[np.integer[Any]],
    select: Select,
) -> tuple[Sweep, str]:
    """Score all fits on validation rows and choose one.

    Args:
        rows: of the features; truth: their classes.

    Returns:
        The sweep, by ascending C, and what the score leaves out, or "".

    Raises:
        Refused: the score is not defined on these rows.
    """
    (values, losses), reason = np.empty((2, len(fitted.fits.C))), ""
    constant = np.zeros(len(values), np.bool_)
    step = max(1, _BLOCK_BYTES // (8 * len(rows) * fitted.classes))
    for start in range(0, len(values), step):
        which = range(start, min(start + step, len(values)))
        for r, probabilities in zip(which, fitted.probabilities(features, rows, which), strict=True):
            values[r], reason = quality(truth, probabilities, select, fitted.unseen)
            losses[r], _ = quality(truth, probabilities, "log-loss", fitted.unseen)
            constant[r] = np.ptp(probabilities, axis=0).max(initial=0) <= CONSTANT
    if np.isnan(values).any():
        raise Refused(
            f"No {select} on the {len(truth)} validation images: {reason}",
            "C is chosen by a score that is defined",
            "choose by another with --select, or give a validation part with every class",
        )
    fits = fitted.fits
    order = np.argsort(fits.C)
    sweep = Sweep(
        select=select,
        C=fits.C[order],
        val_score=values[order],
        val_log_loss=losses[order],
        objective=fits.objective[order],
        gradient_norm=fits.gradient_norm[order],
        iterations=fits.iterations[order],
        converged=fits.converged[order],
        best=choose(fits.C[order], values[order], select, losses[order], constant[order]),
        constant=constant[order],
    )
    return sweep, reason
