"""The plain loop over images and views, in float64 with the explicit inverse: what the kernels must equal."""

import numpy as np
from scipy.spatial.distance import mahalanobis


def loop(
    mean: np.ndarray, covariance: np.ndarray, images: np.ndarray, views: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of whitened deviations and Mahalanobis distance, [n, k] each, one view at a time.

    S^-1 = L L^T with L lower, z = (m - f) L as a row vector.
    """
    inverse = np.linalg.inv(covariance)
    lower = np.linalg.cholesky((inverse + inverse.T) / 2)
    cosine, distance = np.empty(views.shape[:2]), np.empty(views.shape[:2])
    for i, j in np.ndindex(*views.shape[:2]):
        image, view = images[i].astype(np.float64), views[i, j].astype(np.float64)
        a, b = (mean - image) @ lower, (mean - view) @ lower
        cosine[i, j] = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
        distance[i, j] = mahalanobis(image, view, inverse)
    return cosine, distance
