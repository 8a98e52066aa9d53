"""Targets from columns of the manifest: one column of classes, or several findings at once.

A column of classes gives codes from 0 in the order of its names. A column of findings has cells 1 (positive),
0 (negative), -1 (uncertain) or nothing, as CheXpert's 14 have; it becomes 0, 1 or -1 (masked: the image takes
no part in this finding) by two stated policies. The cells that a policy changes are always counted.

The study's code turned an uncertain cell into a uniform draw from [0.55, 0.85], and then, for the linear
probe, into an integer: 0. That is `zeros` here. Real soft labels are refused: the objective that all
solvers share takes integer targets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.common.features import Features
from engine.evals.common.labels import refuse_measured
from engine.evals.probe.options import Blank, Options, Policies, Uncertain
from stores.json_types import JsonObject

__all__ = [
    "MASKED",
    "Blank",
    "Policies",
    "Target",
    "Uncertain",
    "classes_of",
    "finding_of",
    "targets_of",
    "together",
]

MASKED = -1
_POSITIVE, _NEGATIVE, _UNCERTAIN, _BLANK = 1, 0, 2, 3
#: Texts that mean the same as an empty cell.
_NAN = ("nan", "NaN", "NAN", "Nan")
#: Texts of a finding's cells, as tables write these numbers.
_CELLS = {
    **dict.fromkeys(("1", "1.0"), _POSITIVE),
    **dict.fromkeys(("0", "0.0", "-0.0"), _NEGATIVE),
    **dict.fromkeys(("-1", "-1.0"), _UNCERTAIN),
    **dict.fromkeys(("", *_NAN), _BLANK),
}
_SHOWN = 5


@dataclass(frozen=True)
class Target:
    """One task.

    Attributes:
        column: of the manifest.
        classes: their names, in the order of the codes; a finding's are `negative` and `positive`.
        codes: int64 [N], class of every image, -1 where it is masked.
        masked: images masked, by reason (`blank`, `uncertain`); reasons without images are left out.
        counted: cells that a policy turned into a class, e.g. `uncertain as 0`.
    """

    column: str
    classes: tuple[str, ...]
    codes: NDArray[np.int64]
    masked: Mapping[str, int]
    counted: Mapping[str, int]

    def to_dict(self) -> JsonObject:
        """Return `{column, classes: {name: images}, masked, counted}`."""
        counts = np.bincount(self.codes[self.codes >= 0], minlength=len(self.classes)).tolist()
        return {
            "column": self.column,
            "classes": dict(zip(self.classes, counts, strict=True)),
            "masked": dict(self.masked),
            "counted": dict(self.counted),
        }


def classes_of(column: str, codes: NDArray[np.integer[Any]], names: Sequence[str]) -> Target:
    """Make a task of a column of classes.

    Args:
        codes: [N] index into `names`, -1 where the cell is empty.
        names: as the cells have them.

    Raises:
        Refused: no cell has a value, the cells are those of a finding with uncertain ones, or they are
            numbers that differ from image to image.
    """
    named = np.array([name not in _NAN for name in names], np.bool_)
    if not named.any():
        raise Refused(
            f"Column {column!r} has no value in {len(codes)} rows",
            "A probe learns labels",
            "name a column that has some",
        )
    cells = {_CELLS.get(name.strip()) for name in names}
    if None not in cells and _UNCERTAIN in cells:
        raise Refused(
            f"Column {column!r} holds {', '.join(map(repr, names))}",
            "These are cells of a finding, in which -1 means uncertain and is no class of its own",
            "ask for it as a finding, with a policy for uncertain cells",
        )
    place = np.append(np.where(named, np.cumsum(named) - 1, MASKED), MASKED)  # the last is an empty cell's
    targets = place[np.asarray(codes)].astype(np.int64)
    blank = int((targets == MASKED).sum())
    classes = tuple(name for name in names if name not in _NAN)
    refuse_measured(f"Column {column!r}", targets, classes)
    return Target(column, classes, targets, {"blank": blank} if blank else {}, {})


def finding_of(
    column: str, codes: NDArray[np.integer[Any]], names: Sequence[str], policies: Policies
) -> Target:
    """Make a task of two classes of a column of 1, 0, -1 and empty cells.

    Args:
        codes, names: as in `classes_of`.

    Raises:
        Refused: any other text in a cell.
    """
    known = [_CELLS.get(name.strip()) for name in names]
    codes = np.asarray(codes)
    strange = [position for position, kind in enumerate(known) if kind is None]
    if strange:
        counts = np.bincount(codes[codes >= 0], minlength=len(names))
        listed = ", ".join(f"{names[position]!r} ({counts[position]} rows)" for position in strange[:_SHOWN])
        remainder = f" and {len(strange) - _SHOWN} other values" if len(strange) > _SHOWN else ""
        raise Refused(
            f"Column {column!r} holds {listed}{remainder}",
            "A finding's cells are 1, 0, -1 (uncertain) or empty",
            "correct these cells, or ask for the column as one of classes",
        )
    kinds = np.array([*known, _BLANK], np.int64)[codes]  # an empty cell's code, -1, takes the last
    uncertain = {"ignore": MASKED, "zeros": 0, "ones": 1}[policies.uncertain]
    blank = {"ignore": MASKED, "zeros": 0}[policies.blank]
    targets = np.array([0, 1, uncertain, blank], np.int64)[kinds]
    masked, counted = {}, {}
    for name, kind, becomes in (("uncertain", _UNCERTAIN, uncertain), ("blank", _BLANK, blank)):
        cells = int((kinds == kind).sum())
        if cells and becomes == MASKED:
            masked[name] = cells
        elif cells:
            counted[f"{name} as {becomes}"] = cells
    return Target(column, ("negative", "positive"), targets, masked, counted)


def together(targets: Sequence[Target]) -> NDArray[np.int8]:
    """Put findings side by side: int8 [N, T] of 0, 1 and -1 (masked), as `fit_many` takes them."""
    return np.stack([target.codes for target in targets], axis=1).astype(np.int8)


def targets_of(features: Features, options: Options) -> tuple[Target, ...]:
    """Make the tasks that options name: findings, or the classes of the features' own labels.

    Raises:
        Refused: no such column, or cells that are not as they should be.
        BankError: a damaged file.
    """
    if options.findings:
        policies = options.policies or Policies()
        return tuple(_finding(features, name, policies) for name in options.findings)
    if options.policies is not None:
        return (_finding(features, "label", options.policies),)
    codes, names = features.texts("label")
    return (classes_of(features.label or "label", codes, names),)


def _finding(features: Features, name: str, policies: Policies) -> Target:
    cells = features.column(name)
    if cells.names is None:
        raise Refused(
            "a finding whose cells are the labels, which are whole numbers",
            "A negative one is no label in arrays, and so none can be uncertain",
            "give the cells as texts, or among the `findings` of Features.from_arrays",
        )
    column = features.label or name if name == "label" else name
    return finding_of(column, cells.codes, cells.names, policies)
