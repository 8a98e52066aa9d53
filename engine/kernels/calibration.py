"""Calibration of predicted probabilities: temperature scaling, Brier score, class-wise calibration error.

Temperature scaling divides all logits by one number T > 0, chosen by the log loss on images that were not
trained on (Guo et al. 2017, "On Calibration of Modern Neural Networks", ICML, arXiv 1706.04599). It changes
no ranking of the classes of an image, so that accuracy stays as it is.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels.metrics import Codes, Floats, Reliability

#: Least log probability that a temperature is fitted to: that of the smallest normal float64.
_LEAST = math.log(np.finfo(np.float64).tiny)
#: Most steps of Newton's method, of which any may be a bisection; and the relative step that ends it.
_STEPS, _TOLERANCE = 200, 1e-14


@dataclass(frozen=True)
class Temperature:
    """A temperature.

    Attributes:
        value: T; NaN if the log loss has no minimum at a positive, finite T.
        reason: why it is NaN; "" if it is a number.
    """

    value: float
    reason: str = ""


def temperature(log_probabilities: Floats, labels: Codes) -> Temperature:
    """Find the temperature at which softmax(z / T) has the least log loss.

    The loss is convex in 1 / T, and its derivative is monotone; the root is found by Newton's method within a
    bracket, to rounding.

    Args:
        log_probabilities: float64 [n, K], logits z up to a constant for each row; log probabilities are such.
            Those below -708 count as -708.
        labels: [n] classes from 0.
    """
    if not len(labels):
        return Temperature(math.nan, "there is no validation image")
    if (labels == labels[0]).all():
        return Temperature(math.nan, "all validation images are of one class")
    z = np.maximum(np.asarray(log_probabilities, np.float64), _LEAST)
    lead = z - z[np.arange(len(z)), labels][:, None]  # of each class over the true one
    if lead.mean() >= 0:
        reason = "the validation scores are no better than chance, so that the log loss falls as T grows"
        return Temperature(math.nan, reason)
    if not lead.max(axis=1).any():
        reason = "all validation images are classified correctly, so that the log loss falls as T nears 0"
        return Temperature(math.nan, reason)
    return Temperature(1 / _least_loss(lead))


def _least_loss(lead: Floats) -> float:
    """Return the b > 0 at which the mean of log sum exp(b lead) is least; [n, K], where there is one."""
    low, high = 0.0, 1.0
    while _slopes(lead, high)[0] < 0:
        low, high = high, 2 * high
    b = 0.5 * (low + high)
    for _ in range(_STEPS):
        slope, curvature = _slopes(lead, b)
        low, high = (b, high) if slope < 0 else (low, b)
        new = b - slope / curvature if curvature > 0 else math.inf
        new = new if low < new < high else 0.5 * (low + high)
        if abs(new - b) <= _TOLERANCE * b:
            return new
        b = new
    return b


def _slopes(lead: Floats, b: float) -> tuple[float, float]:
    """Return the first and second derivative of the mean of log sum exp(b lead) by b."""
    p = np.exp(b * lead - (b * lead).max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    mean = (p * lead).sum(axis=1)
    return float(mean.mean()), float(((p * lead**2).sum(axis=1) - mean**2).mean())


def scaled(probabilities: Floats, value: float) -> Floats:
    """Return softmax(log(p) / T) for probabilities [n, K] and a temperature; what is 0 stays 0."""
    with np.errstate(divide="ignore"):
        z = np.log(np.asarray(probabilities, np.float64)) / value
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return np.asarray(p, np.float64)


def brier(truth: Codes, probabilities: Floats) -> float:
    """Return the Brier score; NaN without rows.

    With two columns it is the mean of (p - y)^2 for the second class, in [0, 1]; with more the mean over rows
    of the sum over classes, in [0, 2] (Brier 1950, Monthly Weather Review 78, 1). scikit-learn's
    `brier_score_loss` does the same with `scale_by_half="auto"`.
    """
    if not len(truth):
        return math.nan
    if probabilities.shape[1] == 2:
        return float(((probabilities[:, 1] - (truth == 1)) ** 2).mean())
    one_hot: NDArray[Any] = truth[:, None] == np.arange(probabilities.shape[1])
    return float(((probabilities - one_hot) ** 2).sum(axis=1).mean())


def class_calibration_error(truth: Codes, probabilities: Floats) -> float:
    """Return the expected calibration error of classes' own probabilities, in 15 bins of equal width.

    With two columns it is that of the second class, with more the mean over all classes (class-wise ECE: Kull
    et al. 2019, "Beyond temperature scaling", NeurIPS, arXiv 1910.12656). NaN without rows.
    """
    classes = probabilities.shape[1]
    errors = [Reliability.of(truth == c, probabilities[:, c]).error for c in range(classes)]
    return errors[1] if classes == 2 else float(np.mean(errors))
