"""Labels and groups of arrays as whole numbers: one encoder for every evaluation.

Whole numbers stand for themselves; texts get codes from 0 in the order of their characters, after the same
cleaning as a manifest's cells (`stores.manifest.text`). Masked and pandas' nullable numbers, categories,
lists, bytes and tensors are read as what they hold. A negative number, NaN, None, NaT and a word for a
missing value are no label: -1.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.kernels.codes import distinct
from stores.manifest.measurements import REMEDY, is_measurement
from stores.manifest.text import cell

#: Whole numbers that a float64 holds exactly.
_EXACT = 2.0**53
_SHOWN = 3


@dataclass(frozen=True)
class Labels:
    """Labels as numbers.

    Attributes:
        codes: int64 [N], -1 where there is none.
        names: what the codes stand for; None if for themselves.
    """

    codes: NDArray[np.int64]
    names: tuple[str, ...] | None = None


def label_codes(labels: Any) -> Labels:
    """Read labels of any array-like, [N] whole numbers or texts; `Labels` stay as they are.

    Raises:
        Refused: not one-dimensional, numbers that are not whole or infinite, or a number that differs from
            image to image, which is a measurement and no class.
    """
    encoded = labels if isinstance(labels, Labels) else _encoded(labels, "labels")
    refuse_measured("labels", encoded.codes, encoded.names)
    return encoded


def group_codes(groups: Any) -> Labels:
    """Read groups (patients), [N], as labels are read; as many as images are fine.

    Raises:
        Refused: as `label_codes`.
    """
    return groups if isinstance(groups, Labels) else _encoded(groups, "groups")


def text_codes(cells: Any) -> Labels:
    """Read cells, [N], as the texts that a table has of them: -1.0 is the text `-1`, and no missing value.

    Raises:
        Refused: not one-dimensional.
    """
    values = [
        f"{value:g}" if isinstance(value, Real) and not _missing(value) else value
        for value in _array(cells, "cells").tolist()
    ]
    return _encoded(np.array(values, object), "cells") if values else Labels(np.zeros(0, np.int64), ())


def refuse_measured(column: str, codes: NDArray[np.integer[Any]], names: Sequence[Any] | None) -> None:
    """Refuse numbers with as many values as images, or nearly so, as classes.

    Args:
        codes: [N], negative where there is none.
        names: what they stand for; None if for themselves.

    Raises:
        Refused: they are measurements.
    """
    known = codes[codes >= 0]
    values = distinct(known)
    if 2 * len(values) <= len(known):  # before a million numbers become text
        return
    texts = [str(value if names is None else names[value]) for value in values.tolist()]
    if is_measurement(texts, len(known)):
        raise Refused(
            f"{column}: {len(texts):,} numbers for {len(known):,} images ({', '.join(texts[:_SHOWN])}, ...)",
            "A class has several images; a number that differs from image to image is a measurement",
            REMEDY,
        )


def _encoded(labels: Any, what: str) -> Labels:
    array = _array(labels, what)
    if array.dtype.kind in "OUSTMm":
        return _objects(array, what)
    if array.dtype.kind not in "biuf":
        raise _wrong_type(array.dtype, what)
    return Labels(_integers(array, what))


def _array(labels: Any, what: str) -> NDArray[Any]:
    ma: Any = sys.modules.get("numpy.ma")  # nobody has a masked array without it, and its import takes time
    if ma is not None and isinstance(labels, ma.MaskedArray):
        masked, labels = ma.getmaskarray(labels), labels.data.astype(object)
        labels[masked] = None
    try:
        array = np.asarray(labels.detach().cpu() if hasattr(labels, "detach") else labels)
    except ValueError as error:  # a ragged list
        raise Refused(f"{what} of unequal length", "They are one a row", "give a vector") from error
    if array.ndim != 1:
        raise Refused(f"{what} of shape {array.shape}", "They are one a row", "give a vector")
    return array


def _wrong_type(kind: object, what: str) -> Refused:
    return Refused(f"{what} of type {kind}", "They are whole numbers or texts", "convert them to texts")


def _integers(array: NDArray[Any], what: str) -> NDArray[np.int64]:
    """Return numbers as int64, with -1 for negative ones and NaN."""
    if array.dtype.kind == "f":
        array = np.where(array < 0, -1, array)  # -inf is no label either
        numbers = array[~np.isnan(array)]
        fractional = numbers != np.floor(numbers)
        if fractional.any():
            raise Refused(
                f"{what} such as {numbers[fractional][0]:g}", "Labels are whole numbers or texts", REMEDY
            )
        limit: float = _EXACT
    else:
        numbers, limit = array, 2**63
    if len(numbers) and numbers.max().item() >= limit:
        raise Refused(
            f"{what} such as {numbers.max()}",
            "Numbers are finite and small enough to be exact",
            "give texts, or codes of numpy.unique(labels, return_inverse=True)",
        )
    known = np.where(np.isnan(array), -1, array) if array.dtype.kind == "f" else array
    return np.maximum(known.astype(np.int64), -1)


def _objects(array: NDArray[Any], what: str) -> Labels:
    """Encode an object array: texts, or numbers of which some are missing."""
    dates = array.dtype.kind in "Mm"
    values = np.where(np.isnat(array), "", array.astype(str)).tolist() if dates else array.tolist()
    try:
        different = dict.fromkeys(values)
    except TypeError as error:
        raise _wrong_type(
            type(next(value for value in values if value.__hash__ is None)).__name__, what
        ) from error
    present = [value for value in different if not _missing(value)]
    if present and all(isinstance(value, Real) for value in present):
        integral = all(isinstance(value, int | np.integer) for value in present)
        fill: float = -1 if integral else np.nan
        numbers = np.array([fill if _missing(value) else value for value in values])
        return _encoded(numbers if numbers.dtype.kind != "O" else numbers.astype(float), what)
    name_of = {value: "" if _missing(value) else cell(_text(value)) for value in different}
    names = sorted(set(name_of.values()) - {""})
    place = {name: code for code, name in enumerate(names)} | {"": -1}
    codes = np.fromiter((place[name_of[value]] for value in values), np.int64, len(values))
    return Labels(codes, tuple(names))


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _missing(value: Any) -> bool:
    """Return whether a value is None, NaN, NaT or pandas' NA, without importing pandas."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return bool(isinstance(value, Real) and value != value)
