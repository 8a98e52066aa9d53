"""Statistics of a bank's features, computed once and cached in the bank under a key of all their inputs."""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from engine.evals.common.features import Features
from engine.evals.common.validity import ValidityIssue, issue
from engine.kernels.covariance import moments
from engine.kernels.sample_moments import Arithmetic, Moments
from engine.kernels.whitening import Regularisation, Whitener, fit_whitener
from stores.bank import array_cache, documents
from stores.bank.reader import FeatureSet
from stores.json_types import JsonObject

Arrays: TypeAlias = dict[str, NDArray[Any]]

#: Version of the algorithm, part of every key: raised whenever the statistics change.
VERSION = 1


@dataclass(frozen=True)
class Statistics:
    """A whitener, and whether it was read from the bank's cache.

    Attributes:
        cached: `factor` (all was kept), `moments` (mean and covariance were), or empty.
        damaged: kept files that were broken, and made again.
        seconds: wall.
    """

    whitener: Whitener
    how: Regularisation
    cached: str
    damaged: tuple[str, ...]
    seconds: float

    @property
    def validity(self) -> Iterator[ValidityIssue]:
        """Issues of the covariance."""
        images, dimensions = self.whitener.count, len(self.whitener.mean)
        if images <= dimensions:
            text = (
                f"{dimensions} dimensions and a covariance of {images} images, made invertible by {self.how}"
            )
            yield issue("more_dimensions_than_images", text, dimensions)

    def numbers(self) -> JsonObject:
        """Return counts, method and condition number, which no cache changes."""
        whitener = self.whitener
        return {
            "images": whitener.count,
            "dimensions": len(whitener.mean),
            "rank": whitener.rank,
            "regularisation": str(self.how),
            "shrinkage": whitener.shrinkage,
            "condition": whitener.condition,
            "variance_kept": whitener.variance,
        }

    def to_dict(self) -> JsonObject:
        """Return the numbers, and how they came about."""
        return {
            **self.numbers(),
            "cached": self.cached,
            "damaged": list(self.damaged),
            "seconds": round(self.seconds, 4),
        }


def statistics_of(
    features: Features,
    rows: NDArray[np.intp],
    how: Regularisation,
    *,
    arithmetic: Arithmetic,
    device: str,
    memory: int | None = None,
) -> Statistics:
    """Compute `statistics` of a bank's feature, or of arrays, whose statistics are kept nowhere.

    Args:
        memory: bytes of the device that the features may take (`Features.on`); None for what is free.

    Raises:
        Refused: as `engine.kernels.whitening.fit_whitener`.
    """
    numbers = partial(features.matrix, device, memory)
    if features.source is not None:
        bank = features.source.features
        return statistics(bank, rows, how, arithmetic=arithmetic, device=device, numbers=numbers)
    start = time.perf_counter()
    sums = moments(numbers(), rows, arithmetic=arithmetic, device=device)
    return Statistics(
        fit_whitener(sums, how, arithmetic=arithmetic), how, "", (), time.perf_counter() - start
    )


def statistics(
    features: FeatureSet,
    rows: NDArray[np.intp],
    how: Regularisation,
    *,
    arithmetic: Arithmetic = "float64",
    device: str = "cpu",
    numbers: Callable[[], Any] | None = None,
) -> Statistics:
    """Compute mean and factored covariance of some rows of a feature.

    They are kept in the bank, under `statistics`: mean and covariance by feature key, rows and arithmetic,
    the factor by these and the regularisation. A damaged file is made again, and named.

    Args:
        rows: of images with an embedding, perhaps repeated.
        how: regularisation of the covariance.
        arithmetic: of the products.
        device: of the products. Not part of the key: both sum in float64.
        numbers: gives the matrix [N, d], perhaps on the device, where it is needed; None reads the bank's.

    Raises:
        Refused: as `engine.kernels.whitening.fit_whitener`.
    """
    start = time.perf_counter()
    key: JsonObject = {
        "version": VERSION,
        "feature": features.key.digest,
        "rows": hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest(),
        "count": len(rows),
        "arithmetic": arithmetic,
    }
    damaged: list[str] = []
    full = {**key, **asdict(how)}
    arrays = _read(features, full, damaged)
    if arrays is not None:
        factored = Whitener(
            arrays["mean"],
            arrays["factor"],
            how.method,
            float(arrays["shrinkage"]),
            float(arrays["condition"]),
            len(rows),
            float(arrays["variance"]),
        )
        return Statistics(factored, how, "factor", tuple(damaged), time.perf_counter() - start)
    arrays = _read(features, key, damaged)
    if arrays is None:
        matrix = features.array if numbers is None else numbers()
        sums = moments(matrix, rows, arithmetic=arithmetic, device=device)
    else:
        parts = (arrays[name] for name in ("mean", "scatter", "quartic"))
        sums = Moments(len(rows), *parts).on(device)
    factored = fit_whitener(sums, how, arithmetic=arithmetic)  # may refuse, so nothing is kept before
    if arrays is None:
        kept = sums.to_host()
        _write(
            features, key, {"mean": kept.mean, "scatter": kept.scatter, "quartic": np.asarray(kept.quartic)}
        )
    _write(features, full, _whitener_arrays(factored.to_host()))
    cached = "" if arrays is None else "moments"
    return Statistics(factored, how, cached, tuple(damaged), time.perf_counter() - start)


def _whitener_arrays(whitener: Whitener) -> Arrays:
    names = ("shrinkage", "condition", "variance")
    written: Arrays = {name: np.asarray(getattr(whitener, name)) for name in names}
    return {"mean": whitener.mean, "factor": whitener.factor, **written}


def _path(key: JsonObject) -> str:
    return f"statistics/{hashlib.sha256(documents.canonical(key)).hexdigest()[:24]}.arrays"


def _read(features: FeatureSet, key: JsonObject, damaged: list[str]) -> Arrays | None:
    try:
        return array_cache.read(features.bank.path, _path(key), key)
    except documents.BrokenDocument:
        damaged.append(_path(key))
        return None


def _write(features: FeatureSet, key: JsonObject, arrays: Arrays) -> None:
    array_cache.keep(features.bank.path, _path(key), key, arrays)
