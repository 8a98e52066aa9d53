"""Measures of how degenerate features are, taken once and kept in the bank.

They concern all rows with an embedding, whatever an evaluation takes of them. Costly ones are bounded: the
spectrum is that of `SPECTRUM_ROWS` evenly spaced rows, and pairs of rows are compared only up to
`PAIR_PRODUCTS` multiplications.
"""

import hashlib
from dataclasses import dataclass, field
from math import nan
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from engine.evals.common.features import Features
from engine.kernels.float16 import finite_rows
from stores.bank import array_cache, documents
from stores.bank.array_cache import ArrayFile
from stores.bank.reader import FeatureSet
from stores.json_types import JsonObject

#: Version of the measures, part of every key: raised whenever one of them changes.
VERSION = 1
#: Most rows that the spectrum is computed from: their eigenvalues take 0.2 s, of twice as many 1.3 s.
SPECTRUM_ROWS = 1024
#: Most products of numbers for comparing all pairs of rows, about 0.2 s on one core.
PAIR_PRODUCTS = 4_000_000_000
#: Least cosine, without the common mean, of images that are nearly the same; and most pairs that are kept.
NEAR, MOST_PAIRS = 0.95, 10_000
#: Features that span fewer dimensions in effect have near pairs by chance.
PAIRS_RANK = 20.0

PairsState = Literal["compared", "too many images", "too few effective dimensions", "too many pairs"]
_STATES: tuple[PairsState, ...] = (
    "compared",
    "too many images",
    "too few effective dimensions",
    "too many pairs",
)


@dataclass(frozen=True, eq=False, repr=False)
class FeatureQuality:
    """Measures of the rows that have an embedding.

    Attributes:
        images: rows that have one. dimensions: length of an embedding.
        sampled: rows of the spectrum and the spread.
        not_finite: rows among `images` with NaN or infinity; the other measures leave them out.
        constant: dimensions with one value in all rows.
        spread: `relative_spread`, NaN where it is undefined.
        effective_rank, participation_ratio: of the covariance; NaN where it is 0 or of fewer than two rows.
        duplicates: int64 [m, 2], rows that equal another byte for byte, and the number of their set.
        near: int64 [p, 2], pairs of rows whose cosine without the common mean is `NEAR` or more.
        pairs: `compared`, or why pairs were not compared.
    """

    images: int
    dimensions: int
    sampled: int = 0
    not_finite: int = 0
    constant: int = 0
    spread: float = nan
    effective_rank: float = nan
    participation_ratio: float = nan
    duplicates: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 2), np.int64))
    near: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 2), np.int64))
    pairs: PairsState = "compared"

    @classmethod
    def of(cls, array: NDArray[Any], ok: NDArray[np.bool_]) -> "FeatureQuality":
        """Measure features [N, d] of any float type; ok: bool [N], rows that have an embedding."""
        # Imported here: most records are of features that the bank knows already.
        from engine.kernels.degeneracy import constant_dimensions, evenly_spaced, relative_spread
        from engine.kernels.spectrum import covariance_spectrum, effective_rank, participation_ratio

        embedded = np.flatnonzero(ok)
        rows = embedded[finite_rows(array)[embedded]]
        not_finite, dimensions = len(embedded) - len(rows), int(array.shape[1])
        if len(rows) < 2 or not dimensions:
            return cls(len(embedded), dimensions, not_finite=not_finite)
        sample = array[evenly_spaced(rows, SPECTRUM_ROWS)].astype(np.float64)
        eigenvalues = covariance_spectrum(sample)
        rank = effective_rank(eigenvalues)
        near, pairs = _near(array, rows, rank)
        return cls(
            images=len(embedded),
            dimensions=dimensions,
            sampled=len(sample),
            not_finite=not_finite,
            constant=constant_dimensions(array, rows, sample),
            spread=relative_spread(sample),
            effective_rank=rank,
            participation_ratio=participation_ratio(eigenvalues),
            duplicates=_duplicates(array, rows),
            near=near,
            pairs=pairs,
        )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return what the bank keeps."""
        numbers = [float(getattr(self, name)) for name in _NUMBERS]
        return {
            "numbers": np.array([*numbers, _STATES.index(self.pairs)], np.float64),
            "duplicates": self.duplicates,
            "near": self.near,
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> "FeatureQuality":
        """Take what `to_arrays` gave."""
        *numbers, state = arrays["numbers"].tolist()
        known = {
            name: value if name in _FRACTIONS else int(value)
            for name, value in zip(_NUMBERS, numbers, strict=True)
        }
        return cls(
            **cast(dict[str, Any], known),
            duplicates=arrays["duplicates"],
            near=arrays["near"],
            pairs=_STATES[int(state)],
        )


_FRACTIONS = ("spread", "effective_rank", "participation_ratio")
_NUMBERS = ("images", "dimensions", "sampled", "not_finite", "constant", *_FRACTIONS)


def _near(array: NDArray[Any], rows: NDArray[np.intp], rank: float) -> tuple[NDArray[np.int64], PairsState]:
    none = np.empty((0, 2), np.int64)
    if len(rows) ** 2 * array.shape[1] // 2 > PAIR_PRODUCTS:
        return none, "too many images"
    if not rank >= PAIRS_RANK:
        return none, "too few effective dimensions"
    from engine.kernels.degeneracy import near_pairs

    pairs = near_pairs(array, rows, NEAR, MOST_PAIRS + 1)
    return (none, "too many pairs") if len(pairs) > MOST_PAIRS else (pairs, "compared")


def _duplicates(array: NDArray[Any], rows: NDArray[np.intp]) -> NDArray[np.int64]:
    from engine.kernels.near_duplicates import identical_groups
    from engine.kernels.vectors import Vectors

    groups = identical_groups(Vectors(array, rows))
    if not groups:
        return np.empty((0, 2), np.int64)
    members = np.concatenate(groups)
    number = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    return np.stack([rows[members].astype(np.int64), number], axis=1)


#: Bank and digest of a seal -> the measures of the feature, those that were used last in this process.
_measured: dict[tuple[str, str], FeatureQuality] = {}
#: The same -> what the bank is to keep, until the next record of the feature is made.
_unsaved: dict[tuple[str, str], ArrayFile] = {}
_MOST = 64


def quality_of(features: Features) -> FeatureQuality:
    """Return the measures of features: those that the bank keeps, or new ones.

    Nothing is written: `unsaved` gives what the bank is to keep.

    Raises:
        BankError: a chunk is missing or damaged. MachineFault: the storage fails.
    """
    if features.source is None:
        known: dict[str, FeatureQuality] = features.__dict__.setdefault("_quality", {})
        if "" not in known:
            known[""] = FeatureQuality.of(features.on("cpu"), features.ok)
        return known[""]
    feature = features.source.features
    here = _place(feature)
    if here not in _measured:
        if len(_measured) >= _MOST:
            _measured.clear()
            _unsaved.clear()
        _measured[here] = _of_bank(feature)
    return _measured[here]


def _place(feature: FeatureSet) -> tuple[str, str]:
    return str(feature.bank.path), feature.seal_digest


def _of_bank(feature: FeatureSet) -> FeatureQuality:
    key: JsonObject = {"quality": VERSION, "feature": feature.key.digest, "seal": feature.seal_digest}
    path = f"statistics/{hashlib.sha256(documents.canonical(key)).hexdigest()[:24]}.arrays"
    try:
        arrays = array_cache.read(feature.bank.path, path, key)
    except documents.BrokenDocument:
        arrays = None  # made again
    if arrays is not None:
        return FeatureQuality.from_arrays(arrays)
    quality = FeatureQuality.of(feature.array, feature.ok)
    _unsaved[_place(feature)] = ArrayFile(path, key, quality.to_arrays())
    return quality


def unsaved(features: Features) -> tuple[ArrayFile, ...]:
    """Return, once, the measures that the bank is to keep with the next record of the features."""
    if features.source is None:
        return ()
    file = _unsaved.pop(_place(features.source.features), None)
    return () if file is None else (file,)
