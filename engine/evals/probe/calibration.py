"""Calibration of a probe before and after temperature scaling.

The temperature is that of the fit on the train part alone, at the chosen C, on the validation part: images
that this fit has not seen. The model that is tested, the refit, has learned from train and validation, so
that no image is left to fit a temperature of its own on: it takes this one, as scikit-learn's
`CalibratedClassifierCV(ensemble=False)` gives the final fit the calibration of fits on fewer images. With
more images the refit is regularised less, and its logits are larger: the temperature may be too low for it,
the more so the stronger the regularisation and the larger the validation part. Both fits are therefore
measured on test.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.kernels.calibration import brier, class_calibration_error, scaled, temperature
from engine.kernels.metrics import Codes, Floats, Reliability, log_loss
from stores.json_types import JsonObject

#: Numbers that a calibration has before and after.
MEASURES = ("ece", "class_ece", "brier", "log_loss")


#: Rise of the log loss, in nats, from which the reader is told.
_WORSE = 0.01
#: Truth [n], probabilities [n, K], and the classes that the fit does not know.
Answers = tuple[Codes, Floats, Sequence[int]]


@dataclass(frozen=True)
class Scores:
    """Scores of probabilities on some images; smaller is better.

    Attributes:
        ece: expected calibration error of the predicted class's probability, 15 bins of equal width.
        class_ece: that of the second class's probability, or the mean over more than two classes.
        brier: as `engine.kernels.calibration.brier`.
        log_loss: nats; NaN where the truth has classes that were not trained on.
        log_loss_reason: why it is NaN; "" if it is a number.
        reliability: of the second class's probability, or of the predicted class's with more than two.
    """

    ece: float
    class_ece: float
    brier: float
    log_loss: float
    log_loss_reason: str
    reliability: Reliability | None

    @classmethod
    def of(cls, truth: Codes, probabilities: Floats, unseen: Sequence[int]) -> "Scores":
        """Compute from [n] classes and probabilities [n, K]; unseen: classes that the fit does not know."""
        top = Reliability.of(probabilities.argmax(axis=1) == truth, probabilities.max(axis=1))
        two = probabilities.shape[1] == 2
        return cls(
            top.error,
            class_calibration_error(truth, probabilities),
            brier(truth, probabilities),
            *log_loss(truth, probabilities, unseen),
            Reliability.of(truth == 1, probabilities[:, 1]) if two else top,
        )

    @classmethod
    def undefined(cls) -> "Scores":
        """Return NaN for all."""
        return cls(math.nan, math.nan, math.nan, math.nan, "", None)


@dataclass(frozen=True)
class Calibration:
    """Calibration of a probe.

    Attributes:
        temperature: NaN if there is none; then all that comes after is NaN.
        reason: why it is NaN; "" if it is a number.
        images: validation images that it was fitted on.
        validation: before and after on these; of the fit on train.
        test: before and after on the test part; of the refit.
        train_fit: before and after on the test part; of the fit on train.
    """

    temperature: float
    reason: str
    images: int
    validation: tuple[Scores, Scores]
    test: tuple[Scores, Scores]
    train_fit: tuple[Scores, Scores]

    @classmethod
    def of(cls, val: Answers, test: Answers, train_fit: Answers) -> "Calibration":
        """Fit the temperature and apply it.

        Args:
            val: of the fit on train, on the validation part.
            test, train_fit: of the refit and of the fit on train, on the test part.
        """
        truth, probabilities, unseen = val
        known = np.setdiff1d(np.arange(probabilities.shape[1]), np.asarray(unseen, np.int64))
        rows = np.isin(truth, known)  # others have probability 0, whatever the temperature
        with np.errstate(divide="ignore"):
            logits = np.log(probabilities[rows][:, known])
        fitted = temperature(logits, np.searchsorted(known, truth[rows]))
        sides = [(Scores.of(*part), _after(*part, fitted.value)) for part in (val, test, train_fit)]
        return cls(fitted.value, fitted.reason, int(rows.sum()), *sides)

    @property
    def note(self) -> str:
        """A sentence where the temperature makes the log loss of the refit worse, or ""."""
        before, after = (scores.log_loss for scores in self.test)
        if not after > before + _WORSE:
            return ""
        return (
            f"The temperature {self.temperature:.3g} of the fit on train does not suit the refit, whose log "
            f"loss rises from {before:.3f} to {after:.3f}: take the probabilities as they are"
        )

    def to_dict(self) -> JsonObject:
        """Return `{temperature, fitted_on, ece: {before, after}, ..., bins, validation}`."""
        before, after = self.test
        reason: JsonObject = {"reason": self.reason} if self.reason else {}
        return {
            "temperature": self.temperature,
            **reason,
            "fitted_on": {"part": "val", "images": self.images, "model": "train"},
            **_measures(self.test),
            "bins": {
                name: None if scores.reliability is None else scores.reliability.to_dict()
                for name, scores in (("before", before), ("after", after))
            },
            "validation": _measures(self.validation),
            "fit_on_train": _measures(self.train_fit),
        }


def _after(truth: Codes, probabilities: Floats, unseen: Sequence[int], value: float) -> Scores:
    if math.isnan(value):
        return Scores.undefined()
    return Scores.of(truth, scaled(probabilities, value), unseen)


def _measures(sides: tuple[Scores, Scores]) -> JsonObject:
    body: JsonObject = {
        name: {"before": getattr(sides[0], name), "after": getattr(sides[1], name)} for name in MEASURES
    }
    if reason := sides[0].log_loss_reason:
        body["log_loss_reason"] = reason
    return body
