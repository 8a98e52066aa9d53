"""Whitening: deviations from the mean, scaled so that every direction of feature space counts alike.

With mean m and covariance S = C C^T, an image with feature f becomes z = C^-1 (f - m), found by a triangular
solve. Then z.z is the squared Mahalanobis distance from the mean, and cosines of z are those of equations 3-5
of Anton et al., J. Imaging 2022, 8, 320: another factor of S^-1 turns all z alike.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.kernels.covariance import Arithmetic, Moments

Method = Literal["ledoit-wolf", "ridge", "components", "none"]
#: Largest value of a method that has one.
_MOST = {"ridge": 1e12, "components": 1e9}
#: Below so many dimensions all eigenvalues are computed for the condition number, above only the outer ones.
_SMALL = 128
#: Rows whitened at a time: 32 MiB of float64 at 2,048 dimensions.
BLOCK_ROWS = 2048


@dataclass(frozen=True)
class Regularisation:
    """How a covariance is made fit to be inverted.

    Attributes:
        method: `ledoit-wolf` mixes with the identity times the mean variance, by a share that the data
            choose; `ridge` adds `value` times the identity; `components` keeps the leading `value` principal
            components and drops all else; `none` takes the covariance as it is.
        value: see `method`; 0 where it has no meaning.
    """

    method: Method = "ledoit-wolf"
    value: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Regularisation":
        """`ledoit-wolf`, `ridge=1e-6`, `components=100` or `none`. Raises Refused on anything else."""
        name, _, number = text.partition("=")
        if name in ("ledoit-wolf", "none") and not number:
            return cls(name)  # type: ignore[arg-type]
        pattern = {"ridge": r"([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", "components": r"[0-9]+"}.get(name)
        if pattern and re.fullmatch(pattern, number.lower()) and 0 < float(number) <= _MOST[name]:
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
    """Mean and factor, ready for use.

    Attributes:
        mean: float64 [d].
        factor: float64; lower triangular [d, d] with the regularised covariance = factor factor^T, or for
            `components` [k, d] with z = factor (f - mean).
        method: of the regularisation.
        shrinkage: share of the identity (Ledoit-Wolf), else 0.
        condition: largest by smallest eigenvalue of what is inverted.
        count: images that mean and covariance were taken from.
        variance: share of the variance that is kept: 1, or less for `components`.
    """

    mean: NDArray[np.float64]
    factor: NDArray[np.float64]
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
        """Whether whitening is a triangular solve, else a projection."""
        return self.method != "components"


def whitener(
    found: Moments, how: Regularisation, *, arithmetic: Arithmetic = "float64", ddof: int | None = None
) -> Whitener:
    """Factor a covariance, in float64.

    Args:
        found: the statistics.
        how: the regularisation.
        arithmetic: that the statistics were made with; decides which eigenvalues can be told from zero.
        ddof: 0 or 1; None is 0 for Ledoit-Wolf (as published) and 1 else.

    Raises:
        Refused: a covariance that is not of full rank with `none`, more components than there are, features
            that do not vary at all.
    """
    if not np.trace(found.scatter) > 0:
        raise Refused(
            f"{found.count} images with the same feature", "Whitening needs variance", "check the images"
        )
    covariance = found.covariance((0 if how.method == "ledoit-wolf" else 1) if ddof is None else ddof)
    if how.method == "components":
        return _components(found, covariance, int(how.value), arithmetic)
    shrinkage, diagonal = 0.0, np.einsum("ii->i", covariance)
    if how.method == "ledoit-wolf":
        shrinkage = found.shrinkage()
        average = diagonal.mean()
        covariance *= 1 - shrinkage
        diagonal += shrinkage * average
    elif how.method == "ridge":
        diagonal += how.value
    elif found.count <= found.dim:
        raise _deficient(
            f"{found.count} images for {found.dim} dimensions: rank {found.count - 1} at most", how
        )
    try:
        factor = np.asarray(np.linalg.cholesky(covariance), np.float64)
    except np.linalg.LinAlgError:
        raise _deficient(f"a covariance of {found.count} images that is not positive definite", how) from None
    low, high = _extremes(covariance, factor)
    if how.method == "none" and low <= _resolution(found.dim, arithmetic) * high:
        raise _deficient(f"smallest by largest eigenvalue {low / high:.2g} in {arithmetic}", how)
    return Whitener(found.mean, factor, how.method, shrinkage, high / low, found.count)


def _deficient(what: str, how: Regularisation) -> Refused:
    return Refused(
        f"Rank-deficient covariance with shrinkage {how} ({what})",
        "Only a covariance of full rank can be inverted",
        "use --shrinkage ledoit-wolf, ridge=VALUE or components=COUNT, or more images",
    )


def _resolution(dim: int, arithmetic: Arithmetic) -> float:
    """Eigenvalues below this share of the largest are rounding errors."""
    return dim * float(np.finfo(arithmetic).eps)


def _components(
    found: Moments, covariance: NDArray[np.float64], wanted: int, arithmetic: Arithmetic
) -> Whitener:
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    rank = int((values > _resolution(found.dim, arithmetic) * values[0]).sum())
    rank = min(rank, found.count - 1)
    if wanted > rank:
        raise Refused(
            f"{wanted} components of {found.count} images in {found.dim} dimensions",
            f"Their covariance has rank {rank}",
            f"use at most --shrinkage components={rank}",
        )
    factor = np.ascontiguousarray((vectors[:, :wanted] / np.sqrt(values[:wanted])).T)
    kept = float(values[:wanted].sum() / np.trace(covariance))
    return Whitener(
        found.mean, factor, "components", 0.0, float(values[0] / values[wanted - 1]), found.count, kept
    )


def _extremes(covariance: NDArray[np.float64], factor: NDArray[np.float64]) -> tuple[float, float]:
    """Smallest and largest eigenvalue; the smallest through the inverse, where Lanczos finds it quickly."""
    if len(covariance) <= _SMALL:
        values = np.linalg.eigvalsh(covariance)
        return float(values[0]), float(values[-1])
    from scipy.linalg import cho_solve
    from scipy.sparse.linalg import LinearOperator, eigsh

    def solve(v: NDArray[np.float64]) -> NDArray[np.float64]:
        # The transposed factor is column-major, as LAPACK wants it: no copy in each call.
        return np.asarray(cho_solve((factor.T, False), v, check_finite=False))

    inverse = LinearOperator(covariance.shape, matvec=solve, dtype=np.float64)
    # ARPACK's tolerance is of the vector; the eigenvalue's error is about its square.
    given = {"v0": np.random.default_rng(0).standard_normal(len(covariance)), "ncv": 40, "tol": 1e-2}
    largest, smallest = (
        float(eigsh(matrix, k=1, which="LA", return_eigenvectors=False, **given)[0])
        for matrix in (covariance, inverse)
    )
    return 1 / smallest, largest


class Whitening:
    """Applies a `Whitener` on one device, in one arithmetic.

    Args:
        whitener: statistics.
        arithmetic: of the products; the factor is float64 either way, and inverted in it for `float32`.
        device: `cpu` or `cuda:N`.
    """

    def __init__(
        self, whitener: Whitener, *, arithmetic: Arithmetic = "float64", device: str = "cpu"
    ) -> None:
        if arithmetic not in get_args(Arithmetic):
            raise Refused(f"arithmetic {arithmetic!r}", "Products are float64 or float32", "choose one")
        self.whitener, self.arithmetic, self.device = whitener, arithmetic, device
        self._dtype = np.dtype(arithmetic)
        self._matrix = _prepared(whitener, self._dtype)
        self._resident = None if device == "cpu" else _upload(self._matrix, device)

    def __call__(self, features: NDArray[Any]) -> NDArray[Any]:
        """Whitened deviations [n, rank] of features [n, d], in the arithmetic's type."""
        if len(features) == 0:
            return np.empty((0, self.whitener.rank), self._dtype)
        blocks = [self._block(features[i : i + BLOCK_ROWS]) for i in range(0, len(features), BLOCK_ROWS)]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    def _block(self, features: NDArray[Any]) -> NDArray[Any]:
        if self._resident is not None:
            return self._on_device(features)
        # Subtracted in float64: in float32 a mean far from zero would cost digits.
        centred = np.subtract(features, self.whitener.mean, dtype=np.float64).astype(self._dtype, copy=False)
        if not self.whitener.solves:
            return np.asarray(centred @ self._matrix.T)
        from scipy.linalg import blas

        # Row-major [n, d] is column-major [d, n]: both routines work in place.
        if self._dtype == np.float64:
            return np.asarray(blas.dtrsm(1.0, self._matrix, centred.T, lower=1, overwrite_b=1).T)
        return np.asarray(blas.strmm(1.0, self._matrix, centred.T, lower=1, overwrite_b=1).T)

    def _on_device(self, features: NDArray[Any]) -> NDArray[Any]:
        import torch

        matrix: Any = self._resident
        mean = torch.tensor(self.whitener.mean, device=self.device)  # copies: a loaded mean is read-only
        centred = (torch.from_numpy(np.array(features)).to(self.device).double() - mean).to(matrix.dtype)
        if self.whitener.solves and self._dtype == np.float64:
            found = torch.linalg.solve_triangular(matrix, centred.T, upper=False).T
        else:
            found = centred @ matrix.T
        return np.asarray(found.cpu().numpy())


def _prepared(found: Whitener, dtype: np.dtype[Any]) -> NDArray[Any]:
    """What whitening multiplies or solves with, column-major."""
    if dtype == np.float64 or not found.solves:
        return np.asfortranarray(found.factor.astype(dtype, copy=False))
    from scipy.linalg import solve_triangular

    inverse = solve_triangular(found.factor, np.eye(found.rank), lower=True, check_finite=False)
    return np.asfortranarray(inverse.astype(dtype))


def _upload(matrix: NDArray[Any], device: str) -> Any:
    import torch

    return torch.tensor(np.ascontiguousarray(matrix), device=device)


@dataclass(frozen=True)
class Agreement:
    """How alike views are to their images.

    Attributes:
        cosine: float64 [n, k], of whitened deviations; NaN where one of them is zero.
        distance: float64 [n, k], Mahalanobis distance between image and view.
        images: float64 [n, rank], whitened images, scaled to length 1; NaN where the deviation is zero.
    """

    cosine: NDArray[np.float64]
    distance: NDArray[np.float64]
    images: NDArray[np.float64]


def agreement(whitening: Whitening, images: NDArray[Any], views: NDArray[Any]) -> Agreement:
    """Cosine and distance of every view to its image, some images at a time.

    Args:
        whitening: statistics and arithmetic.
        images: [n, d], any float type; views: [n, k, d].
    """
    n, k, d = views.shape
    cosine, distance = np.empty((n, k)), np.empty((n, k))
    unit = np.empty((n, whitening.whitener.rank))
    step = max(1, BLOCK_ROWS // max(k, 1))
    for start in range(0, n, step):
        at = slice(start, min(start + step, n))
        z = whitening(images[at])
        w = whitening(views[at].reshape(-1, d)).reshape(len(z), k, -1)
        length = np.sqrt(np.einsum("ij,ij->i", z, z))
        with np.errstate(invalid="ignore", divide="ignore"):
            unit[at] = z / length[:, None]
            for i, (one, of_one) in enumerate(zip(z, w, strict=True), start=start):
                lengths = np.sqrt(np.einsum("ij,ij->i", of_one, of_one)) * length[i - start]
                cosine[i] = (of_one @ one) / lengths
                of_one -= one
                distance[i] = np.sqrt(np.einsum("ij,ij->i", of_one, of_one))
    return Agreement(cosine, distance, unit)
