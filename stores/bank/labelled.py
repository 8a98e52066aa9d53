"""Rows of a feature that have an embedding and a label: what scikit-learn and torch take."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from stores.bank.layout import COLUMNS
from stores.errors import Refused
from stores.manifest.measurements import REMEDY, is_measurement
from stores.manifest.split_words import matching_splits
from stores.manifest.text import clean

if TYPE_CHECKING:
    from stores.manifest.manifest import Manifest

#: Texts in banks of earlier versions that mean the same as an empty cell.
_NAN = ("nan", "NaN", "NAN", "Nan")
_UNCERTAIN = ("-1", "-1.0")
_FINDING = ("1", "1.0", "0", "0.0", "-0.0", *_UNCERTAIN, *_NAN)
_SHOWN = 3


class Columns(Protocol):
    """The part of a bank that describes its rows. See `stores.bank.reader.Bank`."""

    @property
    def rows(self) -> int: ...
    def column(self, name: str) -> tuple[npt.NDArray[np.int32], list[str]]: ...
    def manifest(self) -> "Manifest": ...


@dataclass(frozen=True)
class Labelled:
    """Usable rows of a feature.

    Attributes:
        rows: intp [n], ascending: their places in the bank.
        codes: int64 [n], their labels, each an index into `classes`.
        classes: all labels of the column, sorted by bytes; the same for every split.
    """

    rows: npt.NDArray[np.intp]
    codes: npt.NDArray[np.int64]
    classes: tuple[str, ...]


def labelled(bank: Columns, ok: npt.NDArray[np.bool_], label: str, split: str | None) -> Labelled:
    """Find the rows that have an embedding and a label.

    Args:
        bank: of the feature.
        ok: bool [rows], which rows have an embedding.
        label: a column of the manifest.
        split: take rows of this split only, by a word that evaluations take (`stores.manifest.split_words`).

    Raises:
        Refused: no such split, no usable row, or a column that names no classes.
        ManifestError: no such column. BankError: a damaged file.
    """
    codes, classes = column_codes(bank, label)
    blank = [code for code, name in enumerate(classes) if name in _NAN]
    has_label = (codes >= 0) & ~np.isin(codes, blank)
    _refuse_no_classes(label, codes[has_label], classes)
    inside = _inside(bank, split)
    rows = np.flatnonzero(inside & has_label & ok)
    if not len(rows):
        failed, bare = int((inside & ~ok).sum()), int((inside & ~has_label).sum())
        where = "the bank" if split is None else f"split {split!r}"
        raise Refused(
            f"No usable row among the {int(inside.sum()):,} of {where} ({failed:,} without an embedding, "
            f"{bare:,} without a value in column {label!r})",
            "Images with an embedding and a label are needed",
            "choose another split or label column, or embed the images that failed",
        )
    return Labelled(rows, codes[rows].astype(np.int64), tuple(classes))


def column_codes(bank: Columns, name: str) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Read any column of the manifest as `Bank.column` gives those that are at hand.

    Raises:
        ManifestError: no such column. BankError: a damaged file.
    """
    if name in COLUMNS:  # kept at hand, without the manifest
        return bank.column(name)
    manifest = bank.manifest()
    if name not in manifest.table.column_names:
        name = clean(name)  # cleaned like the manifest's header
    manifest.column(name)  # raises an error that lists the columns, if there is none of this name
    return manifest.codes(name)


def _refuse_no_classes(label: str, codes: npt.NDArray[np.int32], classes: Sequence[str]) -> None:
    """Refuse columns whose codes would pass for classes: measurements, and findings with uncertain cells."""
    used = [classes[code] for code in np.unique(codes).tolist()]
    if is_measurement(used, len(codes)):
        raise Refused(
            f"Column {label!r}: {len(used):,} numbers for {len(codes):,} images "
            f"({', '.join(used[:_SHOWN])}, ...)",
            "A class has several images; a number that differs from image to image is a measurement",
            f"{REMEDY}, or take the numbers from `Bank.manifest().frame`",
        )
    words = [name.strip() for name in used]
    if all(word in _FINDING for word in words) and any(word in _UNCERTAIN for word in words):
        raise Refused(
            f"Column {label!r} holds {', '.join(map(repr, used))}",
            "These are cells of a finding, in which -1 means uncertain and is no class of its own",
            "take the cells from `Bank.manifest().frame` and decide what uncertain ones become, or probe the "
            "finding with `embank probe`, which has a policy for them",
        )


def _inside(bank: Columns, split: str | None) -> npt.NDArray[np.bool_]:
    if split is None:
        return np.ones(bank.rows, np.bool_)
    codes, names = bank.column("split")
    splits = [names.index(name) for name in matching_splits(split, names)]
    if not splits:
        known = ", ".join(map(repr, names)) or "no splits"
        raise Refused(f"split {split!r}", f"The bank has {known}", "name one of these, or none")
    return np.isin(codes, splits)
