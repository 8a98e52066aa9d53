"""Statistics of a bank's features, computed once and kept in the bank under everything they depend on."""

import hashlib
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels.covariance import Arithmetic, Moments, moments
from engine.kernels.whitening import Regularisation, Whitener, whitener
from stores.bank import array_cache, documents
from stores.bank.reader import FeatureSet

#: Changes whenever the statistics come out otherwise; part of every key.
VERSION = 1


@dataclass(frozen=True)
class Statistics:
    """A whitener and where it came from.

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

    def to_dict(self) -> dict[str, Any]:
        """For records: counts, method, condition number."""
        found = self.whitener
        return {
            "images": found.count,
            "dimensions": len(found.mean),
            "rank": found.rank,
            "regularisation": str(self.how),
            "shrinkage": found.shrinkage,
            "condition": found.condition,
            "variance_kept": found.variance,
            "cached": self.cached,
            "damaged": list(self.damaged),
            "seconds": round(self.seconds, 4),
        }


def statistics(
    features: FeatureSet,
    rows: NDArray[np.intp],
    how: Regularisation,
    *,
    arithmetic: Arithmetic = "float64",
    device: str = "cpu",
) -> Statistics:
    """Mean and factored covariance of some rows of a feature.

    Kept in the bank, under `statistics`: mean and covariance by feature key, rows and arithmetic,
    the factor by these and the regularisation. A damaged file is made again, and named.

    Args:
        rows: of images with an embedding, perhaps repeated.
        how: regularisation of the covariance.
        arithmetic: of the products.
        device: of the products. Not part of the key: both sum in float64.

    Raises:
        Refused: as `engine.kernels.whitening.whitener`.
    """
    start = time.perf_counter()
    key: dict[str, Any] = {
        "version": VERSION,
        "feature": features.key.digest,
        "rows": hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest(),
        "count": len(rows),
        "arithmetic": arithmetic,
    }
    damaged: list[str] = []
    full = {**key, **asdict(how)}
    kept = _read(features, full, damaged)
    if kept is not None:
        found = Whitener(
            kept["mean"],
            kept["factor"],
            how.method,
            float(kept["shrinkage"]),
            float(kept["condition"]),
            len(rows),
            float(kept["variance"]),
        )
        return Statistics(found, how, "factor", tuple(damaged), time.perf_counter() - start)
    sums = _read(features, key, damaged)
    if sums is None:
        made = moments(features.array, rows, arithmetic=arithmetic, device=device)
    else:
        made = Moments(len(rows), sums["mean"], sums["scatter"], float(sums["quartic"]))
    found = whitener(made, how, arithmetic=arithmetic)  # may refuse, so nothing is kept before
    if sums is None:
        _write(features, key, {"mean": made.mean, "scatter": made.scatter, "quartic": made.quartic})
    numbers = {"shrinkage": found.shrinkage, "condition": found.condition, "variance": found.variance}
    _write(features, full, {"mean": found.mean, "factor": found.factor, **numbers})
    cached = "" if sums is None else "moments"
    return Statistics(found, how, cached, tuple(damaged), time.perf_counter() - start)


def _path(key: dict[str, Any]) -> str:
    return f"statistics/{hashlib.sha256(documents.canonical(key)).hexdigest()[:24]}.arrays"


def _read(features: FeatureSet, key: dict[str, Any], damaged: list[str]) -> dict[str, NDArray[Any]] | None:
    try:
        return array_cache.read(features.bank.path, _path(key), key)
    except documents.BrokenDocument:
        damaged.append(_path(key))
        return None


def _write(features: FeatureSet, key: dict[str, Any], found: dict[str, Any]) -> None:
    array_cache.keep(
        features.bank.path, _path(key), key, {name: np.asarray(value) for name, value in found.items()}
    )
