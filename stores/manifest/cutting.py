"""Parts or folds of a list of images that divide no patient, by a seeded hash of the patients' names.

A unit is what must not be divided: a patient where the row names its group, else the image. It belongs to the
stratum of the rarest class among its images; units without any label form a stratum of their own. Within a
stratum, units are sorted by their keys. A key is the first 64 bits, little endian, of SHA-256 over
`embank split 1 <JSON list>`, where the list is [seed, purpose, kind, name] and the kind `group` or `image`.
Hence the order of the rows has no influence.

Parts by ratios are consecutive runs of this order, ending where the number of images comes nearest to the
ratio. The error of one stratum is made up for in the next, by at most one unit. Each part gets a unit if
there are enough: the first part first, then the last, then those between.

Folds are filled greedily: the units of a stratum, the largest first, go to the fold with the fewest images of
the stratum, ties to the fold with the fewest images in all.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.integer[Any]]
Numbers = NDArray[np.int64]


class Ids(Protocol):
    """The ids of images by row."""

    def __getitem__(self, index: int, /) -> str: ...


def unit_key(seed: int, purpose: str, kind: str, name: str) -> int:
    """Return the key that sorts a unit within its stratum, 64 bits.

    Args:
        seed: of the cut.
        purpose: of the cut, so that cuts for different purposes are independent under one seed.
        kind: `group` or `image`.
        name: the group or the image id.
    """
    text = f"embank split 1 {json.dumps([seed, purpose, kind, name])}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def rarest_class(codes: Codes, classes: int, unit: NDArray[np.intp], units: int) -> Numbers:
    """Return the rarest class of each unit, as its rank by number of rows; the rarest of all has rank 0.

    Args:
        codes: [rows], class of each row, -1 where it has none.
        classes: number of classes.
        unit: [rows], unit of each row.
        units: number of units.

    Returns:
        int64 [units]; `classes` where no row of the unit has a class.
    """
    rank = np.empty(classes + 1, np.int64)  # the last place is that of -1
    rank[np.argsort(np.bincount(codes[codes >= 0], minlength=classes), kind="stable")] = np.arange(classes)
    rank[-1] = classes
    strata = np.full(units, classes, np.int64)
    np.minimum.at(strata, unit, rank[codes])
    return strata


@dataclass(frozen=True)
class Units:
    """The units of a list of images: what a cut must not divide.

    Attributes:
        of_row: intp [rows], the unit of each row.
        sizes: int64 [units], number of rows.
        keys: uint64 [units].
        strata: int64 [units], numbered from 0; all 0 where the cut is not stratified.
    """

    of_row: NDArray[np.intp]
    sizes: Numbers
    keys: NDArray[np.uint64]
    strata: Numbers

    @classmethod
    def of(
        cls,
        image_ids: Ids,
        groups: tuple[Codes, Sequence[str]],
        labels: tuple[Codes, Sequence[str]] | None,
        seed: int,
        purpose: str,
    ) -> "Units":
        """Make the units of a manifest's columns.

        Args:
            image_ids: [rows], unique; those of rows without a group are read.
            groups, labels: codes [rows], -1 where a cell is empty, and vocabulary; labels None for a cut that
                is not stratified.
            seed, purpose: as for `unit_key`.
        """
        codes, names = groups
        own_unit = len(names) + np.arange(len(codes))  # of rows without a group
        units, of_row = np.unique(np.where(codes >= 0, codes, own_unit), return_inverse=True)
        kinds = [
            ("group", names[unit]) if unit < len(names) else ("image", image_ids[unit - len(names)])
            for unit in units.tolist()
        ]
        keys = np.array([unit_key(seed, purpose, kind, name) for kind, name in kinds], np.uint64)
        strata = np.zeros(len(units), np.int64)
        if labels is not None:
            strata = rarest_class(labels[0], len(labels[1]), of_row, len(units))
        return cls(of_row, np.bincount(of_row), keys, strata)

    def by_stratum(self) -> list[NDArray[np.intp]]:
        """Return the units of each stratum, sorted by their keys; the stratum of the rarest class first."""
        order = np.lexsort((self.keys, self.strata))
        return np.split(order, np.flatnonzero(np.diff(self.strata[order])) + 1)


def by_ratios(units: Units, ratios: Sequence[float]) -> Numbers:
    """Cut into parts that take given shares of the images.

    Args:
        units: of the images.
        ratios: share of each part, positive, summing to 1.

    Returns:
        int64 [rows]: the part of each row. A part is empty where there are too few units.
    """
    ends = np.cumsum(ratios)[:-1]
    part = np.zeros(len(units.sizes), np.int64)
    shortfall = np.zeros(len(ends))  # images that the strata so far lack before each end
    for stratum in units.by_stratum():
        sizes = units.sizes[stratum]
        total, largest = sizes.sum(), sizes.max()
        targets = ends * total + np.clip(shortfall, -largest, largest)
        cuts = _nearest_cuts(np.cumsum(sizes), targets, len(ratios))
        part[stratum] = np.searchsorted(cuts, np.arange(len(stratum)), side="right")
        shortfall += ends * total - np.concatenate([[0], np.cumsum(sizes)])[cuts]
    return np.asarray(part[units.of_row])


def _nearest_cuts(cumulative: Numbers, targets: NDArray[np.float64], parts: int) -> NDArray[np.intp]:
    """Return the number of a stratum's units before the end of each part but the last.

    Args:
        cumulative: images of the first unit, the first two, and so on.
        targets: images wanted before each end.
        parts: number of parts.
    """
    count = len(cumulative)
    if count < parts:  # the first part first, then the last
        last = int(count > 1)
        return np.minimum(np.arange(1, parts, dtype=np.intp), count - last)
    gaps = np.abs(np.concatenate([[0], cumulative]) - targets[:, None])
    cuts: NDArray[np.intp] = gaps.argmin(axis=1)
    for end in range(parts - 1):  # at least one unit before each end, and one for each part after it
        cuts[end] = np.clip(cuts[end], cuts[end - 1] + 1 if end else 1, count - (parts - 1 - end))
    return cuts


def into_folds(units: Units, folds: int) -> Numbers:
    """Cut into folds with nearly equal numbers of images, of each stratum and in all.

    Returns:
        int64 [rows]: the fold of each row. Within a stratum, two folds differ by no more images than its
        largest unit has.
    """
    fold_of_unit = np.zeros(len(units.sizes), np.int64)
    sizes, images = units.sizes.tolist(), [0] * folds
    for stratum in units.by_stratum():
        stratum_images = [0] * folds
        for unit in stratum[np.argsort(-units.sizes[stratum], kind="stable")].tolist():
            smallest = min(range(folds), key=lambda fold: (stratum_images[fold], images[fold]))
            fold_of_unit[unit] = smallest
            stratum_images[smallest] += sizes[unit]
            images[smallest] += sizes[unit]
    return np.asarray(fold_of_unit[units.of_row])
