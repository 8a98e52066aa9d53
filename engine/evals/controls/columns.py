"""Metadata and image statistics as features, and features with other columns."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.common.features import Features
from engine.evals.common.labels import Labels
from stores.errors import ManifestError

Floats = NDArray[np.float64]

#: Role -> names of its column, in lower case, without `_`, spaces and hyphens; the first one present is used.
ROLES: Mapping[str, tuple[str, ...]] = {
    "view": ("view", "viewposition", "projection"),
    "sex": ("sex", "gender", "patientsex", "patientgender"),
    "age": ("age", "patientage"),
    "site": ("site", "hospital", "institution", "center", "centre", "scanner", "manufacturer"),
}
#: Role whose texts are numbers; an age may be written as DICOM does, `057Y`.
_NUMERIC = "age"
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
#: Categories of a column that have a feature of their own; rarer ones share one.
MOST_CATEGORIES = 64


def with_columns(features: Features, changed: Mapping[str, Labels]) -> Features:
    """Return the same features with some columns exchanged."""
    theirs = features.columns

    def columns(name: str) -> Labels | None:
        return changed[name] if name in changed else theirs(name)

    return replace(features, columns=columns)


def with_array(features: Features, name: str, array: Any, ok: NDArray[np.bool_]) -> Features:
    """Return other features [N, d] of the same images, with their labels, patients and splits.

    Args:
        ok: bool [N], rows that have such features; rows without the model's have none here either.
    """
    return replace(features, name=name, title=name, array=array, ok=features.ok & ok, source=None)


def standardised(values: Floats, rows: NDArray[np.bool_]) -> Floats:
    """Return columns with mean 0 and deviation 1 over some rows; 0 where a column has one value.

    Args:
        values: float64 [N, d], finite in these rows.
        rows: bool [N]; the others become 0.
    """
    mean, deviation = values[rows].mean(axis=0), values[rows].std(axis=0)
    constant = deviation <= 1e-12 * np.maximum(np.abs(mean), 1)
    scaled: Floats = np.zeros_like(values)
    scaled[rows] = np.where(constant, 0.0, (values[rows] - mean) / np.where(constant, 1.0, deviation))
    return scaled


def metadata_of(features: Features, learned: Sequence[str]) -> tuple[Features, tuple[str, ...]]:
    """Return features made of the metadata alone, and the names of the columns.

    Categories are one-hot, the missing cells one of them; ages are standardised, with a category for known
    and missing ones.

    Args:
        learned: columns that are the labels, and so no metadata.

    Raises:
        Refused: none of the columns is there.
        BankError: a damaged file.
    """
    used, parts = [], []
    for role, cells in _cells(features, learned).items():
        name, labels = cells
        if (labels.codes[features.ok] < 0).all():
            continue
        used.append(name)
        parts.append(_ages(labels) if role == _NUMERIC else _categories(labels))
    if not used:
        raise Refused(
            "No column has a view, sex, age or site",
            f"Metadata are columns called {', '.join(ROLES)}",
            "name such columns in the table and give its manifest to the bank with `embank bank relabel`",
        )
    array = np.concatenate(parts, axis=1).astype(np.float32)
    return with_array(features, "metadata", array, np.ones(len(features), np.bool_)), tuple(used)


def _cells(features: Features, learned: Sequence[str]) -> dict[str, tuple[str, Labels]]:
    """Return role -> name and texts of its column."""
    names = _names(features)
    by_role = {}
    for role, words in ROLES.items():
        fitting = (name for word in words for name in names.get(word, ()) if name not in learned)
        for name in fitting:
            labels = _texts(features, name)
            if labels is not None:
                by_role[role] = (name, labels)
                break
    return by_role


def _names(features: Features) -> dict[str, list[str]]:
    """Return plain name -> names of the columns; of arrays, whose columns are not listed, the usual ones."""
    if features.source is None:
        listed: Sequence[str] = [word for words in ROLES.values() for word in words]
    else:
        listed = features.source.bank.manifest().table.column_names
    names: dict[str, list[str]] = {}
    for name in listed:
        names.setdefault(name.lower().translate({ord(sign): None for sign in "_- "}), []).append(name)
    return names


def _texts(features: Features, name: str) -> Labels | None:
    try:
        labels = features.columns(name)
    except ManifestError:
        return None
    if labels is None or labels.names is not None:
        return labels
    values, codes = np.unique(labels.codes, return_inverse=True)
    missing = int((values < 0).sum())
    return Labels(codes.astype(np.int64) - missing, tuple(map(str, values[missing:].tolist())))


def _categories(labels: Labels) -> Floats:
    """Return float64 [N, c], one-hot; the last column is of missing cells if there are any."""
    counts = np.bincount(labels.codes[labels.codes >= 0], minlength=len(labels.names or ()))
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] > 0]
    place = np.full(len(counts) + 1, len(order), np.int64)  # the last is a missing cell's
    place[order] = np.minimum(np.arange(len(order)), MOST_CATEGORIES - 1)
    codes = np.unique(place[labels.codes], return_inverse=True)[1]
    return np.eye(int(codes.max()) + 1)[codes]


def _ages(labels: Labels) -> Floats:
    """Return float64 [N, 2 or 3]: the standardised number, 0 where missing, and known and missing one-hot."""
    numbers = np.array([*map(_age, labels.names or ()), np.nan])[labels.codes][:, None]
    known = np.isfinite(numbers[:, 0])
    if not known.any():  # words such as `60-70`
        return _categories(labels)
    kinds = np.stack([known, ~known], axis=1)[:, : 1 if known.all() else 2].astype(np.float64)
    return np.concatenate([standardised(numbers, known), kinds], axis=1)


def _age(text: str) -> float:
    """Return a number in years; NaN for other text."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in _YEARS else (text, "Y")
    try:
        value = float(number)
    except ValueError:
        return float("nan")
    return value * _YEARS[unit] if np.isfinite(value) else float("nan")
