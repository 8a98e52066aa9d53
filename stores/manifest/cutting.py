"""Cut a list of images into parts by whole patients, by a hash of their names and a seed.

A unit is what must not be divided: a patient where the row names its group, else the image. It belongs to the
stratum of the rarest class among its images; units without any label make a stratum of their own. Within a
stratum units are in the order of their keys. A key is the first 64 bits, little endian, of SHA-256 over
`embank split 1 <JSON list>`, the list being [seed, purpose, kind, name] and the kind `group` or `image`. So
the order of rows decides nothing.

Parts by ratios are consecutive stretches of this order, their ends where the images come nearest to the
ratios. What a stratum is off by is made up for in the next, within one unit. Each part gets a unit, where
there are enough: the first part first, then the last, then those between.

Folds are dealt: the units of a stratum, the largest first, go to the fold that has the fewest images of the
stratum, and of equals the fewest images at all.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.integer[Any]]
Numbers = NDArray[np.int64]


def unit_key(seed: int, purpose: str, kind: str, name: str) -> int:
    """The place of a unit in the order of a cut, 64 bits.

    Args:
        purpose: of the cut, so that two cuts by one seed do not agree.
        kind: `group` or `image`.
    """
    text = f"embank split 1 {json.dumps([seed, purpose, kind, name])}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def rarest_class(codes: Codes, classes: int, unit: NDArray[np.intp], units: int) -> Numbers:
    """Find the rarest class of each unit, as its rank by the number of rows that have it; the rarest is 0.

    Args:
        codes: [rows], -1 where a row has no class.
        unit: [rows], of each row, below `units`.

    Returns:
        int64 [units]; the number of classes where no row of a unit has any.
    """
    rank = np.empty(classes + 1, np.int64)  # the last place is that of -1
    rank[np.argsort(np.bincount(codes[codes >= 0], minlength=classes), kind="stable")] = np.arange(classes)
    rank[-1] = classes
    strata = np.full(units, classes, np.int64)
    np.minimum.at(strata, unit, rank[codes])
    return strata


@dataclass(frozen=True)
class Units:
    """What is cut.

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
        image_ids: Sequence[str],
        groups: tuple[Codes, Sequence[str]],
        labels: tuple[Codes, Sequence[str]] | None,
        seed: int,
        purpose: str,
    ) -> "Units":
        """Of a manifest's columns; codes are -1 where a cell is empty.

        Args:
            image_ids: [rows], unique.
            groups, labels: codes [rows] and vocabulary; labels None for a cut that is not stratified.
            seed, purpose: as for `unit_key`.
        """
        codes, names = groups
        alone = len(names) + np.arange(len(codes))
        units, of_row = np.unique(np.where(codes >= 0, codes, alone), return_inverse=True)
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
        """The units of each stratum, in the order of their keys; the rarest class first."""
        order = np.lexsort((self.keys, self.strata))
        return np.split(order, np.flatnonzero(np.diff(self.strata[order])) + 1)


def by_ratios(units: Units, ratios: Sequence[float]) -> Numbers:
    """Cut into parts of given shares of the images.

    Args:
        ratios: of the parts, positive, summing to 1.

    Returns:
        int64 [rows]: the part of each row. A part is empty where there are too few units.
    """
    ends = np.cumsum(ratios)[:-1]
    part = np.zeros(len(units.sizes), np.int64)
    behind = np.zeros(len(ends))  # images that each end came short of so far
    for members in units.by_stratum():
        sizes = units.sizes[members]
        total, largest = sizes.sum(), sizes.max()
        wanted = ends * total + np.clip(behind, -largest, largest)
        cuts = _cuts(np.cumsum(sizes), wanted, len(ratios))
        part[members] = np.searchsorted(cuts, np.arange(len(members)), side="right")
        behind += ends * total - np.concatenate([[0], np.cumsum(sizes)])[cuts]
    return np.asarray(part[units.of_row])


def _cuts(reached: Numbers, wanted: NDArray[np.float64], parts: int) -> NDArray[np.intp]:
    """How many of a stratum's units lie before the end of each part but the last.

    Args:
        reached: images of the first unit, the first two, and so on.
        wanted: images before each end.
    """
    count = len(reached)
    if count < parts:  # the first part first, then the last
        last = int(count > 1)
        return np.minimum(np.arange(1, parts, dtype=np.intp), count - last)
    gaps = np.abs(np.concatenate([[0], reached]) - wanted[:, None])
    cuts: NDArray[np.intp] = gaps.argmin(axis=1)
    for end in range(parts - 1):  # at least one unit before each end, and one for each part after it
        cuts[end] = np.clip(cuts[end], cuts[end - 1] + 1 if end else 1, count - (parts - 1 - end))
    return cuts


def into_folds(units: Units, folds: int) -> Numbers:
    """Deal into folds of as nearly equal numbers of images, of each stratum and in all, as units allow.

    Returns:
        int64 [rows]: the fold of each row. In a stratum two folds differ by no more images than its largest
        unit has.
    """
    fold = np.zeros(len(units.sizes), np.int64)
    sizes, every = units.sizes.tolist(), [0] * folds
    for members in units.by_stratum():
        own = [0] * folds
        for unit in members[np.argsort(-units.sizes[members], kind="stable")].tolist():
            best = min(range(folds), key=lambda each: (own[each], every[each]))
            fold[unit] = best
            own[best] += sizes[unit]
            every[best] += sizes[unit]
    return np.asarray(fold[units.of_row])
