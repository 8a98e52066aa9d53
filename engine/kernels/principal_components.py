"""Principal component analysis in float64."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Components:
    """Rows in the directions of their largest variance.

    Attributes:
        coordinates: float64 [n, k], centred.
        shares: float64 [k], of the total variance, descending; NaN where the rows do not vary.
    """

    coordinates: NDArray[np.float64]
    shares: NDArray[np.float64]


def principal_components(rows: NDArray[Any], count: int = 2) -> Components:
    """Compute the first principal components of centred, unscaled rows.

    Eigenvectors of the covariance, or of the products of the rows where these are fewer than the dimensions.
    The largest loading of each component, in size, is positive, which fixes its sign.

    Args:
        rows: [n, d] of any float type, finite; n and d at least `count`.
    """
    from scipy.linalg import eigh

    x = np.array(rows, np.float64)
    if (x == x[0]).all():  # the mean of equal rows may differ from them by rounding
        return Components(np.zeros((len(x), count)), np.full(count, np.nan))
    x -= x.mean(axis=0)
    size, total = min(x.shape), float(np.einsum("ij,ij->", x, x))
    wide = x.shape[1] > len(x)
    products = x @ x.T if wide else x.T @ x
    values, vectors = eigh(products, subset_by_index=[size - count, size - 1])
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    loadings = x.T @ vectors if wide else vectors
    coordinates = vectors * np.sqrt(values) if wide else x @ vectors
    largest = loadings[np.abs(loadings).argmax(axis=0), np.arange(count)]
    return Components(coordinates * np.where(largest < 0, -1.0, 1.0), values / total)
