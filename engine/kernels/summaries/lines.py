"""Straight lines by least squares, weighted by known errors or not, with standard errors."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from engine.kernels.summaries.checks import Floats, count, is_constant, undefined, vectors


@dataclass(frozen=True)
class Line:
    """The straight line y = intercept + slope x.

    Attributes:
        slope, intercept: NaN if undefined.
        slope_se, intercept_se: standard errors: from sigma as it is; without sigma from the residuals, NaN
            with two points.
        covariance: of slope and intercept.
        chi2: sum of ((y - line) / sigma)^2; without sigma the sum of squared residuals.
        dof: degrees of freedom, n - 2.
        reduced_chi2: chi2 / dof, about 1 if the line and the errors are right; NaN with two points. Without
            sigma the variance of the residuals.
        n: number of points.
        weighted: whether the errors sigma were given.
        reason: why something is NaN; "" if nothing is.
    """

    slope: float
    intercept: float
    slope_se: float
    intercept_se: float
    covariance: float
    chi2: float
    reduced_chi2: float
    dof: int
    n: int
    weighted: bool
    reason: str = ""

    def at(self, x: ArrayLike) -> NDArray[np.float64]:
        """Return the line at [m] places."""
        return self.intercept + self.slope * np.asarray(x, np.float64)

    def band(self, x: ArrayLike) -> NDArray[np.float64]:
        """Return the half width of the pointwise 95 % band of the line at [m] places.

        Student's t with n - 2 degrees of freedom times the standard error of the line there (Draper, Smith,
        Applied Regression Analysis, 1998, section 3.1); with known errors the normal distribution's quantile.
        """
        places = np.asarray(x, np.float64)
        if self.weighted:
            quantile = 1.959963984540054
        else:
            quantile = float(stdtrit(self.dof, 0.975)) if self.dof > 0 else math.nan
        variance = self.intercept_se**2 + 2 * places * self.covariance + (places * self.slope_se) ** 2
        return quantile * np.sqrt(np.maximum(variance, 0.0))


def weighted_least_squares(x: ArrayLike, y: ArrayLike, sigma: ArrayLike) -> Line:
    """Fit a straight line to n points with known, independent standard errors of y.

    Formulae: Bevington, Robinson, Data Reduction and Error Analysis for the Physical Sciences, 2003, section
    6.3; reduced chi-square: section 6.4. The standard errors are not scaled by it.

    Args:
        x, y: [n].
        sigma: [n], positive standard errors.

    Raises:
        ValueError: not vectors of one length.
    """
    first, second, errors = vectors(x, y, sigma)
    if reason := _reason(first, second):
        return _undefined(len(first), True, reason)
    if not (np.isfinite(errors) & (errors > 0)).all():
        return _undefined(len(first), True, "an error is zero or undefined: its weight would be infinite")
    return _fit(first, second, errors, weighted=True)


def least_squares(x: ArrayLike, y: ArrayLike) -> Line:
    """Fit a straight line to n points by ordinary least squares; standard errors are from the residuals.

    Args:
        x, y: [n].

    Raises:
        ValueError: not vectors of one length.
    """
    first, second = vectors(x, y)
    if reason := _reason(first, second):
        return _undefined(len(first), False, reason)
    return _fit(first, second, np.ones(len(first)), weighted=False)


def _reason(x: Floats, y: Floats) -> str:
    if reason := undefined(x) or undefined(y):
        return reason
    if len(x) < 2:
        return f"{count(len(x), 'point')}: a line needs two"
    return "x is constant" if is_constant(x) else ""


def _undefined(n: int, weighted: bool, reason: str) -> Line:
    nan = math.nan
    return Line(nan, nan, nan, nan, nan, nan, nan, n - 2, n, weighted, reason)


def _fit(x: Floats, y: Floats, sigma: Floats, *, weighted: bool) -> Line:
    n, dof = len(x), len(x) - 2
    weights = (sigma.min() / sigma) ** 2  # relative, so that none overflows
    total = weights.sum()
    centre = float(weights @ x / total)
    deviations = x - centre
    square = float(weights @ deviations**2)
    slope = float(weights @ (deviations * y) / square)
    level = float(weights @ y / total)  # of the line at the centre
    chi2 = float((((y - level - slope * deviations) / sigma) ** 2).sum())
    reduced = chi2 / dof if dof else math.nan
    # Slope and level are independent: the intercept is level - slope * centre.
    scale = float(sigma.min() ** 2) if weighted else reduced
    slope_variance = scale / square
    intercept_variance = scale / float(total) + slope_variance * centre**2
    return Line(
        slope,
        level - slope * centre,
        math.sqrt(slope_variance),
        math.sqrt(intercept_variance),
        -slope_variance * centre,
        chi2,
        reduced,
        dof,
        n,
        weighted,
        "" if dof else "two points: no degree of freedom is left",
    )
