"""From columns of the manifest to targets: one column of classes, or several findings at once.

A column of classes gives codes from 0 in the order of its names. A column of findings has cells 1 (positive),
0 (negative), -1 (uncertain) or nothing, as CheXpert's 14 have; it becomes 0, 1 or -1 (masked: the image takes
no part in this finding) by two stated policies. What a policy does to how many cells is always counted.

The study's code turned an uncertain cell into a uniform draw from [0.55, 0.85], and then, for the linear
probe, into an integer: 0. That is `zeros` here. A soft label proper is refused: the objective that all
solvers share has whole targets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.common.labels import refuse_measured
from stores.manifest.text import clean

if TYPE_CHECKING:
    from stores.bank.reader import Bank
    from stores.manifest.manifest import Manifest

Uncertain = Literal["ignore", "zeros", "ones"]
Blank = Literal["ignore", "zeros"]

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
class Policies:
    """What becomes of cells that are neither positive nor negative.

    Attributes:
        uncertain: `ignore` masks them, `zeros` makes them negative, `ones` positive.
        blank: `ignore` masks cells without a value, `zeros` makes them negative.
    """

    uncertain: Uncertain = "ignore"
    blank: Blank = "ignore"

    def __post_init__(self) -> None:
        if str(self.uncertain) == "soft":
            raise Refused(
                "uncertain policy 'soft'",
                "The solvers share one objective, whose targets are 0 or 1. The study's soft labels were cut "
                "to 0 before they reached its classifier",
                "choose zeros (what the study did), ones, or ignore",
            )
        for name, kinds in (("uncertain", Uncertain), ("blank", Blank)):
            if getattr(self, name) not in get_args(kinds):
                raise Refused(
                    f"{name} policy {getattr(self, name)!r}",
                    f"It is one of {', '.join(get_args(kinds))}",
                    "choose one",
                )


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

    def to_dict(self) -> dict[str, Any]:
        """`{column, classes: {name: images}, masked, counted}`."""
        counts = np.bincount(self.codes[self.codes >= 0], minlength=len(self.classes)).tolist()
        return {
            "column": self.column,
            "classes": dict(zip(self.classes, counts, strict=True)),
            "masked": dict(self.masked),
            "counted": dict(self.counted),
        }


def classes_of(column: str, codes: NDArray[np.integer[Any]], names: Sequence[str]) -> Target:
    """A column of classes as a task.

    Args:
        codes: [N] index into `names`, -1 where the cell is empty.
        names: as the cells have them.

    Raises:
        Refused: no cell has a value, the cells are those of a finding with uncertain ones, or they are
            numbers that differ from image to image.
    """
    kept = np.array([name not in _NAN for name in names], np.bool_)
    if not kept.any():
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
    place = np.append(np.where(kept, np.cumsum(kept) - 1, MASKED), MASKED)  # the last is an empty cell's
    found = place[np.asarray(codes)].astype(np.int64)
    blank = int((found == MASKED).sum())
    classes = tuple(name for name in names if name not in _NAN)
    refuse_measured(f"Column {column!r}", found, classes)
    return Target(column, classes, found, {"blank": blank} if blank else {}, {})


def finding_of(
    column: str, codes: NDArray[np.integer[Any]], names: Sequence[str], policies: Policies
) -> Target:
    """A column of 1, 0, -1 and empty cells as a task of two classes.

    Args:
        codes, names: as in `classes_of`.

    Raises:
        Refused: any other text in a cell.
    """
    known = [_CELLS.get(name.strip()) for name in names]
    codes = np.asarray(codes)
    strange = [at for at, kind in enumerate(known) if kind is None]
    if strange:
        counts = np.bincount(codes[codes >= 0], minlength=len(names))
        listed = ", ".join(f"{names[at]!r} ({counts[at]} rows)" for at in strange[:_SHOWN])
        more = f" and {len(strange) - _SHOWN} other values" if len(strange) > _SHOWN else ""
        raise Refused(
            f"Column {column!r} holds {listed}{more}",
            "A finding's cells are 1, 0, -1 (uncertain) or empty",
            "correct these cells, or ask for the column as one of classes",
        )
    kinds = np.array([*known, _BLANK], np.int64)[codes]  # an empty cell's code, -1, takes the last
    uncertain = {"ignore": MASKED, "zeros": 0, "ones": 1}[policies.uncertain]
    blank = {"ignore": MASKED, "zeros": 0}[policies.blank]
    found = np.array([0, 1, uncertain, blank], np.int64)[kinds]
    masked, counted = {}, {}
    for name, kind, becomes in (("uncertain", _UNCERTAIN, uncertain), ("blank", _BLANK, blank)):
        cells = int((kinds == kind).sum())
        if cells and becomes == MASKED:
            masked[name] = cells
        elif cells:
            counted[f"{name} as {becomes}"] = cells
    return Target(column, ("negative", "positive"), found, masked, counted)


def together(targets: Sequence[Target]) -> NDArray[np.int8]:
    """Findings side by side: int8 [N, T] of 0, 1 and -1 (masked), as `fit_many` takes them."""
    return np.stack([target.codes for target in targets], axis=1).astype(np.int8)


def from_bank(
    bank: "Bank", columns: Sequence[str], *, findings: bool = False, policies: Policies | None = None
) -> list[Target]:
    """Tasks from columns of a bank's manifest; `label` alone is read without the manifest itself.

    Args:
        columns: `label`, or any other column of the manifest.
        findings: the columns are findings, else each has classes.
        policies: for findings.

    Raises:
        Refused: no such column, a column named twice, or cells that are not as they should be.
        BankError: a damaged file.
    """
    twice = [name for at, name in enumerate(columns) if name in columns[:at]]
    if twice or not columns:
        raise Refused(
            f"label columns {', '.join(columns) or '(none)'}",
            "Each column is asked for once, and at least one",
            "name the columns to learn",
        )
    asked = policies or Policies()
    manifest = None if set(columns) == {"label"} else bank.manifest()
    found = []
    for name in columns:
        codes, names = bank.column("label") if name == "label" else _codes(manifest, name)
        found.append(finding_of(name, codes, names, asked) if findings else classes_of(name, codes, names))
    return found


def _codes(manifest: "Manifest | None", name: str) -> tuple[NDArray[np.int32], list[str]]:
    assert manifest is not None
    if clean(name) in manifest.table.column_names:
        name = clean(name)  # as the manifest's header was, when it was made
    if name not in manifest.table.column_names:
        manifest.column(name)  # says so, and which columns there are
    return manifest.codes(name)
