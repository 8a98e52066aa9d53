"""Operating points of a probe with two classes: sensitivity at a specificity, a threshold from validation.

The threshold is chosen on the validation scores of the fit on the train part alone, and applied to the test
scores of the refit on train and validation.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.evals.probe.options import Rule
from engine.kernels.codes import fill_singletons
from engine.kernels.intervals.metrics_bootstrap import Percentiles
from engine.kernels.metrics import Codes, Floats
from engine.kernels.operating_points import Point, Proportion, at_specificity, proportion, youden
from stores.json_types import JsonObject


@dataclass(frozen=True)
class OperatingPoints:
    """Operating points on the test part; the positive class is the second.

    Attributes:
        specificity: that is kept.
        sensitivity: the largest at it on the ROC curve of the test part.
        interval: its 95 % interval; None without bootstrap.
        rule: by which the threshold was chosen.
        chosen: the threshold, with sensitivity and specificity on the validation part.
        images: validation images that it was chosen on.
        test: `sensitivity`, `specificity`, `ppv` and `npv` of the test part at this threshold.
    """

    specificity: float
    sensitivity: Point
    interval: Percentiles | None
    rule: Rule
    chosen: Point
    images: int
    test: Mapping[str, Proportion]

    @classmethod
    def of(
        cls,
        val: tuple[Codes, Floats],
        test: tuple[Codes, Floats],
        groups: NDArray[np.integer],
        *,
        specificity: float,
        rule: Rule,
        interval: Percentiles | None = None,
    ) -> "OperatingPoints":
        """Choose on validation, apply on test.

        Args:
            val, test: truth [n] of 0 and 1, and probabilities [n, 2].
            groups: int [tests], of patients, negative where unknown.
            interval: of the sensitivity at the specificity.
        """
        positive, scores = val[0] == 1, val[1][:, 1]
        chosen = youden(positive, scores)
        if rule == "specificity":
            chosen = at_specificity(positive, scores, specificity)
        truth, score = test[0] == 1, test[1][:, 1]
        reached = at_specificity(truth, score, specificity)
        applied = _applied(truth, score, chosen, fill_singletons(groups))
        return cls(specificity, reached, interval, rule, chosen, len(positive), applied)

    def to_dict(self) -> JsonObject:
        """Return `{sensitivity_at_specificity, threshold, test}`."""
        at: JsonObject = {"specificity": self.specificity, "sensitivity": self.sensitivity.sensitivity}
        if self.interval is not None:
            at |= {"low": self.interval.low, "high": self.interval.high}
        reason = self.sensitivity.reason or ("" if self.interval is None else self.interval.reason)
        at |= {"reached": self.sensitivity.specificity, "threshold": self.sensitivity.threshold}
        return {
            "sensitivity_at_specificity": {**at, **({"reason": reason} if reason else {})},
            "threshold": {
                "rule": self.rule,
                "value": self.chosen.threshold,
                "chosen_on": {"part": "val", "images": self.images, "model": "train"},
                "sensitivity": self.chosen.sensitivity,
                "specificity": self.chosen.specificity,
                **({"reason": self.chosen.reason} if self.chosen.reason else {}),
            },
            "at_threshold": {name: own.to_dict() for name, own in self.test.items()},
        }


def _applied(
    positive: NDArray[np.bool_], scores: Floats, chosen: Point, groups: NDArray[np.int64]
) -> dict[str, Proportion]:
    """Return the four proportions of the test part at a threshold."""
    if chosen.reason:
        none = Proportion(math.nan, math.nan, math.nan, 0, 0, f"no threshold: {chosen.reason}")
        return dict.fromkeys(("sensitivity", "specificity", "ppv", "npv"), none)
    called = scores >= chosen.threshold
    return {
        "sensitivity": proportion(called[positive], groups[positive], "positive image"),
        "specificity": proportion(~called[~positive], groups[~positive], "negative image"),
        "ppv": proportion(positive[called], groups[called], "image at the threshold or above"),
        "npv": proportion(~positive[~called], groups[~called], "image below the threshold"),
    }
