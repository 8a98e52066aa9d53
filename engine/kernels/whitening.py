"""Whitening: deviations from the mean, scaled so that all directions of feature space have unit variance.

With mean m and covariance S = C C^T, a feature f becomes z = C^-1 (f - m), computed by a triangular solve.
Then z.z is the squared Mahalanobis distance from the mean, and cosines of z are those of equations 3-5 of
Anton et al., J. Imaging 2022, 8, 320: any other square root of S^-1 only rotates all z together.
"""

import re
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.kernels.sample_moments import Arithmetic, Moments

Method = Literal["ledoit-wolf", "ridge", "components", "none"]
#: Largest value of the methods that have one.
_MAX_VALUE = {"ridge": 1e12, "components": 1e9}
#: For the condition number, all eigenvalues are computed up to this dimension, above it only the extreme
#: ones.
_SMALL = 128
#: Rows whitened at a time: 32 MiB of float64 at 2,048 dimensions.
BLOCK_ROWS = 2048


@dataclass(frozen=True)
class Regularisation:
    """The way in which a covariance is made invertible.

    Attributes:
        method: `ledoit-wolf` mixes the covariance with the identity times the mean variance, by a share
            estimated from the data; `ridge` adds `value` times the identity; `components` keeps only the
            leading `value` principal components; `none` uses the covariance unchanged.
        value: see `method`; 0 for methods without a value.
    """

    method: Method = "ledoit-wolf"
    value: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Regularisation":
        """Parse `ledoit-wolf`, `ridge=1e-6`, `components=100` or `none`; raise Refused for anything else."""
        name, _, number = text.partition("=")
        if name in ("ledoit-wolf", "none") and not number:
            return cls(name)  # type: ignore[arg-type]
        pattern = {"ridge": r"([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", "components": r"[0-9]+"}.get(name)
        if pattern and re.fullmatch(pattern, number.lower()) and 0 < float(number) <= _MAX_VALUE[name]:
            return cls(name, float(number))  # type: ignore[arg-type]
        raise Refused(
            f"shrinkage {text!r}",
            "It is ledoit-wolf, ridge=VALUE above 0 (at most 1e12), components=COUNT from 1 on, or none",
            "e.g. --shrinkage ridge=1e-3",
        )

    def __str__(self) -> str:
        return f"{self.method}={self.value:g}" if self.method in ("ridge", "components") else self.method


@dataclass(frozen=True)
class Whitener:
    """Mean and factor of a regularised covariance: numpy arrays, or torch tensors on a device.

    Attributes:
        mean: float64 [d].
        factor: float64; lower triangular [d, d] with the regularised covariance = factor factor^T, or for
            `components` [k, d] with z = factor (f - mean).
        method: of the regularisation.
        shrinkage: share of the identity (Ledoit-Wolf), else 0.
        condition: ratio of the largest and smallest eigenvalue of the matrix inverted.
        count: images that mean and covariance were computed from.
        variance: share of the variance retained: 1, or less for `components`.
    """

    mean: Any
    factor: Any
    method: Method
    shrinkage: float
    condition: float
    count: int
    variance: float = 1.0

    @property
    def rank(self) -> int:
        """Length of a whitened vector."""
        return len(self.factor)

    @property
    def solves(self) -> bool:
        """True if whitening is a triangular solve, False if it is a projection."""
        return self.method != "components"

    def to_host(self) -> "Whitener":
        """Return the same as numpy arrays."""
        if isinstance(self.factor, np.ndarray):
            return self
        from engine.runtime import fetched

        mean, factor = fetched(self.mean, self.factor)
        return replace(self, mean=mean, factor=factor)


def fit_whitener(
    moments: Moments,
    regularisation: Regularisation,
    *,
    arithmetic: Arithmetic = "float64",
    ddof: int | None = None,
) -> Whitener:
    """Factor a covariance, in float64.

    Args:
        moments: mean and scatter of the features; the factor is computed, and stays, on their device.
        regularisation: of the covariance.
        arithmetic: that the moments were computed in; determines which eigenvalues count as zero.
        ddof: 0 or 1; None means 0 for Ledoit-Wolf (as published) and 1 otherwise.

    Raises:
        Refused: a rank-deficient covariance with `none`, more components than its rank, or features without
            any variance.
    """
    divisor = (0 if regularisation.method == "ledoit-wolf" else 1) if ddof is None else ddof
    if regularisation.method == "none" and moments.count <= moments.dim:
        _refuse_constant(moments, float(moments.scatter.trace()))
        raise _deficient(
            f"{moments.count} images for {moments.dim} dimensions: rank {moments.count - 1} at most",
            regularisation,
        )
    if regularisation.method == "components":
        return _components(moments, divisor, int(regularisation.value), arithmetic)
    make = _factored if isinstance(moments.scatter, np.ndarray) else _factored_on_device
    factor, shrinkage, low, high = make(moments, regularisation, divisor)
    if regularisation.method == "none" and low <= _resolution(moments.dim, arithmetic) * high:
        raise _deficient(f"smallest by largest eigenvalue {low / high:.2g} in {arithmetic}", regularisation)
    return Whitener(moments.mean, factor, regularisation.method, shrinkage, high / low, moments.count)


_Factor = tuple[Any, float, float, float]


def _factored(moments: Moments, regularisation: Regularisation, ddof: int) -> _Factor:
    """Return the factor, the share of the identity, and the extreme eigenvalues."""
    _refuse_constant(moments, float(moments.scatter.trace()))
    covariance = moments.covariance(ddof)
    shrinkage, diagonal = 0.0, np.einsum("ii->i", covariance)
    if regularisation.method == "ledoit-wolf":
        shrinkage = moments.shrinkage()
        average = diagonal.mean()
        covariance *= 1 - shrinkage
        diagonal += shrinkage * average
    elif regularisation.method == "ridge":
        diagonal += regularisation.value
    try:
        factor = np.asarray(np.linalg.cholesky(covariance), np.float64)
    except np.linalg.LinAlgError:
        raise _indefinite(moments, regularisation) from None
    return factor, shrinkage, *_extremes(covariance, factor)


def _factored_on_device(moments: Moments, regularisation: Regularisation, ddof: int) -> _Factor:
    from engine.kernels.device_covariance import factored

    result = factored(moments, regularisation.method, regularisation.value, ddof)
    _refuse_constant(moments, result.variance)
    if result.failed:
        raise _indefinite(moments, regularisation)
    return result.factor, result.shrinkage, result.low, result.high


def _refuse_constant(moments: Moments, variance: float) -> None:
    if not variance > 0:
        raise Refused(
            f"{moments.count} images with the same feature", "Whitening needs variance", "check the images"
        )


def _indefinite(moments: Moments, regularisation: Regularisation) -> Refused:
    return _deficient(f"a covariance of {moments.count} images that is not positive definite", regularisation)


def _deficient(detail: str, regularisation: Regularisation) -> Refused:
    return Refused(
        f"Rank-deficient covariance with shrinkage {regularisation} ({detail})",
        "Only a covariance of full rank can be inverted",
        "use --shrinkage ledoit-wolf, ridge=VALUE or components=COUNT, or more images",
    )


def _resolution(dim: int, arithmetic: Arithmetic) -> float:
    """Return the share of the largest eigenvalue below which eigenvalues are rounding errors."""
    return dim * float(np.finfo(arithmetic).eps)


def _components(moments: Moments, ddof: int, count: int, arithmetic: Arithmetic) -> Whitener:
    values, factor, trace = _projection(moments, ddof, count)
    _refuse_constant(moments, trace)
    rank = int((values > _resolution(moments.dim, arithmetic) * values[0]).sum())
    rank = min(rank, moments.count - 1)
    if count > rank:
        raise Refused(
            f"{count} components of {moments.count} images in {moments.dim} dimensions",
            f"Their covariance has rank {rank}",
            f"use at most --shrinkage components={rank}",
        )
    variance = float(values[:count].sum() / trace)
    return Whitener(
        moments.mean, factor, "components", 0.0, float(values[0] / values[count - 1]), moments.count, variance
    )


def _projection(moments: Moments, ddof: int, count: int) -> tuple[NDArray[np.float64], Any, float]:
    """Return the covariance's eigenvalues [d], largest first, leading eigenvectors over roots, and trace."""
    if not isinstance(moments.scatter, np.ndarray):
        from engine.kernels.device_covariance import components

        return components(moments, count, ddof)
    covariance = moments.covariance(ddof)
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    with np.errstate(invalid="ignore", divide="ignore"):  # more than the rank are refused afterwards
        factor = np.ascontiguousarray((vectors[:, :count] / np.sqrt(values[:count])).T)
    return values, factor, float(np.trace(covariance))


def _extremes(covariance: NDArray[np.float64], factor: NDArray[np.float64]) -> tuple[float, float]:
    """Return the smallest and largest eigenvalue; Lanczos finds the former fast in the inverse."""
    if len(covariance) <= _SMALL:
        values = np.linalg.eigvalsh(covariance)
        return float(values[0]), float(values[-1])
    from scipy.linalg import cho_solve
    from scipy.sparse.linalg import LinearOperator, eigsh

    def solve(v: NDArray[np.float64]) -> NDArray[np.float64]:
        # The transposed factor is column-major, as LAPACK needs it: no copy in every call.
        return np.asarray(cho_solve((factor.T, False), v, check_finite=False))

    inverse = LinearOperator(covariance.shape, matvec=solve, dtype=np.float64)
    # ARPACK's tolerance applies to the vector; the error of the eigenvalue is about its square.
    options = {"v0": np.random.default_rng(0).standard_normal(len(covariance)), "ncv": 40, "tol": 1e-2}
    largest, smallest = (
        float(eigsh(matrix, k=1, which="LA", return_eigenvectors=False, **options)[0])
        for matrix in (covariance, inverse)
    )
    return 1 / smallest, largest


class Whitening:
    """A `Whitener` applied on the CPU in one arithmetic; see `engine.kernels.whitening_place`.

    Args:
        whitener: mean and factor.
        arithmetic: of the products. The factor is float64 in any case; for `float32` it is inverted in
            float64.
    """

    def __init__(self, whitener: Whitener, *, arithmetic: Arithmetic = "float64") -> None:
        check_arithmetic(arithmetic)
        self.whitener = whitener.to_host()
        self._dtype = np.dtype(arithmetic)
        self._matrix = _prepared(self.whitener, self._dtype)

    def __call__(self, features: NDArray[Any]) -> NDArray[Any]:
        """Return whitened deviations [n, rank] of features [n, d], in the arithmetic's dtype."""
        if len(features) == 0:
            return np.empty((0, self.whitener.rank), self._dtype)
        blocks = [self._block(features[i : i + BLOCK_ROWS]) for i in range(0, len(features), BLOCK_ROWS)]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    def _block(self, features: NDArray[Any]) -> NDArray[Any]:
        # Subtracted in float64, because float32 would lose digits if the mean is far from zero.
        centred = np.subtract(features, self.whitener.mean, dtype=np.float64).astype(self._dtype, copy=False)
        if not self.whitener.solves:
            return np.asarray(centred @ self._matrix.T)
        from scipy.linalg import blas

        # Row-major [n, d] is column-major [d, n], so that both routines work in place.
        if self._dtype == np.float64:
            return np.asarray(blas.dtrsm(1.0, self._matrix, centred.T, lower=1, overwrite_b=1).T)
        return np.asarray(blas.strmm(1.0, self._matrix, centred.T, lower=1, overwrite_b=1).T)

    def agreement(self, images: NDArray[Any], views: NDArray[Any]) -> "Agreement":
        """Compute the cosine and distance of every view to its image, block by block.

        Args:
            images: [n, d] of any float type.
            views: [n, k, d] of any float type.
        """
        n, k, d = views.shape
        cosine, distance = np.empty((n, k)), np.empty((n, k))
        unit = np.empty((n, self.whitener.rank))
        step = max(1, BLOCK_ROWS // max(k, 1))
        for start in range(0, n, step):
            block = slice(start, min(start + step, n))
            z = self(images[block])
            w = self(views[block].reshape(-1, d)).reshape(len(z), k, -1)
            length = np.sqrt(np.einsum("ij,ij->i", z, z))
            with np.errstate(invalid="ignore", divide="ignore"):
                unit[block] = z / length[:, None]
                for i, (z_image, z_views) in enumerate(zip(z, w, strict=True), start=start):
                    lengths = np.sqrt(np.einsum("ij,ij->i", z_views, z_views)) * length[i - start]
                    cosine[i] = (z_views @ z_image) / lengths
                    z_views -= z_image
                    distance[i] = np.sqrt(np.einsum("ij,ij->i", z_views, z_views))
        return Agreement(cosine, distance, unit)

    def compare(
        self, features: NDArray[Any], first: NDArray[np.intp], second: NDArray[np.intp]
    ) -> "PairAgreement":
        """Compute the cosine and distance of pairs of rows of features [N, d], block by block."""
        count, rank = len(first), self.whitener.rank
        a, b = np.empty((count, rank), np.float32), np.empty((count, rank), np.float32)
        cosine, distance = np.empty(count), np.empty(count)
        for start in range(0, count, BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            x, y = (self(features[rows[block]]).astype(np.float64) for rows in (first, second))
            distance[block] = np.linalg.norm(x - y, axis=1)
            with np.errstate(invalid="ignore", divide="ignore"):
                x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
            cosine[block] = np.einsum("ij,ij->i", x, y)
            a[block], b[block] = x, y
        return PairAgreement(cosine, distance, a, b)


def check_arithmetic(arithmetic: str) -> None:
    """Refuse an arithmetic that there is not. Raises Refused."""
    if arithmetic not in get_args(Arithmetic):
        raise Refused(f"arithmetic {arithmetic!r}", "Products are float64 or float32", "choose one")


def _prepared(whitener: Whitener, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the column-major matrix that whitening multiplies or solves with."""
    if dtype == np.float64 or not whitener.solves:
        return np.asfortranarray(whitener.factor.astype(dtype, copy=False))
    from scipy.linalg import solve_triangular

    inverse = solve_triangular(whitener.factor, np.eye(whitener.rank), lower=True, check_finite=False)
    return np.asfortranarray(inverse.astype(dtype))


@dataclass(frozen=True)
class Agreement:
    """Similarity of views to their images.

    Attributes:
        cosine: float64 [n, k], cosine of whitened deviations; NaN if one of them is zero.
        distance: float64 [n, k], Mahalanobis distance between image and view.
        images: [n, rank], whitened images scaled to length 1; NaN if the deviation is zero. numpy float64, or
            a tensor on the device.
    """

    cosine: NDArray[np.float64]
    distance: NDArray[np.float64]
    images: Any


@dataclass(frozen=True)
class PairAgreement:
    """Similarity of pairs of images.

    Attributes:
        cosine: float64 [n], of whitened deviations; NaN if one of them is zero.
        distance: float64 [n], Mahalanobis.
        first, second: float32 [n, rank], whitened deviations scaled to length 1 (8 d bytes a pair), numpy or
            tensors on the device; NaN if a deviation is zero.
    """

    cosine: NDArray[np.float64]
    distance: NDArray[np.float64]
    first: Any
    second: Any
