"""The spectrum of a sample covariance, and the number of dimensions that it spans in effect."""

from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray


def covariance_spectrum(features: ArrayLike) -> NDArray[np.float64]:
    """Return the eigenvalues of the sample covariance of rows, float64 [min(n, d)], the largest first.

    They are those of the smaller of the two matrices of inner products, in float64; what rounding made
    negative is 0. If d > n the other d - n eigenvalues are 0.

    Args:
        features: [n, d], finite, n at least 2.
    """
    x = np.array(features, np.float64)
    x -= x.mean(axis=0)
    count, dim = x.shape
    products = x @ x.T if count < dim else x.T @ x
    eigenvalues = np.linalg.eigvalsh(products / (count - 1))
    return np.maximum(eigenvalues[::-1], 0.0)


def effective_rank(eigenvalues: NDArray[np.float64]) -> float:
    """Return the effective rank, exp of the Shannon entropy of eigenvalues scaled to sum 1.

    Between 1 (one direction) and the number of eigenvalues (all alike); NaN where all are 0. Roy and
    Vetterli, The effective rank: a measure of effective dimensionality, EUSIPCO 2007, 606-610, with the
    covariance as their matrix.
    """
    total = eigenvalues.sum()
    if not total > 0:
        return nan
    shares = eigenvalues / total
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def participation_ratio(eigenvalues: NDArray[np.float64]) -> float:
    """Return (sum of eigenvalues)^2 / (sum of their squares); NaN where all are 0.

    Between 1 and the number of eigenvalues as `effective_rank`, and never above it.
    """
    squares = float(eigenvalues @ eigenvalues)
    return float(eigenvalues.sum()) ** 2 / squares if squares > 0 else nan
