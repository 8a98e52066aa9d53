"""Train, validation and test parts of a probe: from the split column, or cut from the train part.

A cut takes whole units: patients where the group column names them, else images. A unit belongs to the
stratum of the rarest class among its images; within a stratum the units with the smallest keys are taken
until the wanted share of the stratum's images is reached as nearly as units allow, at least one unit and
never all. A key is the first 64 bits, little endian, of SHA-256 over `embank split 1 <JSON list>`, the list
being [seed, purpose, kind, name] and the kind `group` or `image`: the cut does not depend on the order of
rows, the model, or which images failed.

`as-published` cuts as the study's code did: indices 0 to n - 1 of the train images, in their order, shuffled
in place by numpy's legacy generator seeded 0; the first floor(0.2 n) are validation. Patients may
straddle it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.common.advice import name_column
from engine.evals.common.features import Features
from engine.evals.common.splits import have, others_note, split_rows
from engine.evals.common.validity import ValidityIssue
from engine.evals.common.validity_checks import class_issues, patient_issues
from engine.evals.probe.options import VALIDATION, SplitOptions
from stores.manifest.cutting import Ids, rarest_class, unit_key

__all__ = [
    "HOLDOUT",
    "VALIDATION",
    "Columns",
    "Parts",
    "SplitOptions",
    "parts",
    "published_validation",
]

Rows = NDArray[np.intp]

#: Default share of a test part that is cut off.
HOLDOUT = 0.2


@dataclass(frozen=True)
class _IdsOf:
    """The ids of features, read when the first is needed: most cuts are made by patient and need none."""

    features: Features

    def __getitem__(self, index: int) -> str:
        return self.features.image_ids[index]


@dataclass(frozen=True)
class Columns:
    """Columns by which parts are found or cut; codes are -1 where a cell is empty.

    Attributes:
        image_ids: [N], unique.
        split, split_names: codes [N] and vocabulary.
        group, group_names: codes [N] and vocabulary.
        there: the beginning of a message about the splits.
        split_remedy: advice for a message: how the rows get splits.
    """

    image_ids: Ids
    split: NDArray[np.integer[Any]]
    split_names: Sequence[str]
    group: NDArray[np.integer[Any]]
    group_names: Sequence[str]
    there: str = "The bank has"
    split_remedy: str = name_column("split")

    @classmethod
    def of(cls, features: Features) -> "Columns":
        """Read the columns of features."""
        there = "There are" if features.source is None else "The bank has"
        split, group = features.texts("split"), features.texts("group")
        return cls(_IdsOf(features), *split, *group, there, features.split_remedy)

    @property
    def units(self) -> NDArray[np.int64]:
        """int64 [N]: the row's group, or a number of its own where it has none."""
        alone = len(self.group_names) + np.arange(len(self.group))
        return np.where(self.group >= 0, self.group, alone)


@dataclass(frozen=True)
class Parts:
    """Rows of each part, ascending (`as-published`: train and validation in the order of its shuffle).

    Attributes:
        train, val, test: intp, disjoint; every row has a label and an embedding.
        masked: rows of the parts that were left out, by reason: `failed`, `unlabelled`.
        unseen: classes that test rows have and no train or validation row has; they can only be wrong.
        notes: what a reader of the numbers must know, one sentence each.
        others: split -> its rows that play no part, by name; the empty text stands for rows without a split.
        cut: parts that no split gave; they are cut from the train split.
        validity: issues of patients in two parts, and of missing and small classes.
    """

    train: Rows
    val: Rows
    test: Rows
    masked: dict[str, int]
    unseen: tuple[int, ...] = ()
    notes: tuple[str, ...] = field(default=())
    others: dict[str, int] = field(default_factory=dict)
    cut: tuple[str, ...] = ()
    validity: tuple[ValidityIssue, ...] = ()

    @property
    def refit(self) -> Rows:
        """Train and validation rows together: what the chosen strength is fitted on at last."""
        return np.concatenate([self.train, self.val])


def parts(
    columns: Columns,
    labels: NDArray[np.integer[Any]],
    ok: NDArray[np.bool_],
    options: SplitOptions | None = None,
    class_names: Sequence[str] = (),
) -> Parts:
    """Find or cut the parts for one task, or for several findings at once.

    Args:
        columns: of the manifest.
        labels: [N] class codes, negative where masked; or [N, T] of T findings, a row taking part if any
            of them is not masked.
        ok: bool [N], rows that have an embedding.
        class_names: for the issues; codes stand in them where there are none.

    Raises:
        Refused: no train or test part, an empty part, fewer than two classes in train, or a class that all of
            a part's images have where two are needed.
    """
    options = options or SplitOptions()
    single = labels.ndim == 1
    labelled = np.asarray(labels >= 0 if single else (labels >= 0).any(axis=1), np.bool_)
    notes: list[str] = []
    assigned, others = _assigned(columns, options, notes)
    cut = tuple(part for part in ("val", "test") if not len(assigned[part]))
    cutter = _Cutter(columns, labels, labelled, options.seed)
    if options.holdout:
        test = cutter.cut(assigned["train"], HOLDOUT, "test")
        assigned["test"], assigned["train"] = test, np.setdiff1d(assigned["train"], test)
        notes.append(f"No test part was given: {HOLDOUT:.0%} of {cutter.kind} held out")
    if not len(assigned["val"]):
        assigned["train"], assigned["val"], note = _validation(assigned["train"], labelled, cutter, options)
        notes.append(note)
    rows_of = _usable(assigned, labelled, ok)
    unseen, issues = _look(rows_of, labels, class_names) if single else ((), ())
    patients = patient_issues(rows_of, columns.group, columns.group_names)
    return Parts(
        rows_of["train"],
        rows_of["val"],
        rows_of["test"],
        _masked(assigned, labelled, ok),
        unseen,
        tuple(notes),
        others,
        cut,
        (*issues, *patients),
    )


def published_validation(count: int) -> Rows:
    """Shuffle positions 0 to count - 1 as the study did; return the first floor(0.2 count) for validation."""
    order = np.arange(count)
    np.random.RandomState(0).shuffle(order)
    return order


def _assigned(
    columns: Columns, options: SplitOptions, notes: list[str]
) -> tuple[dict[str, Rows], dict[str, int]]:
    """Find the rows of the parts that the split column names, and count those of other splits by name.

    All rows are train where the column names nothing at all.
    """
    names = list(columns.split_names)
    known = have(columns.split, names)
    if not names and options.holdout:
        none = np.zeros(0, np.intp)
        return {"train": np.arange(len(columns.split)), "val": none, "test": none}, {}
    words = {"train": options.train, "val": options.val, "test": options.test}
    by_split = split_rows(columns.split, names, words)
    notes += by_split.notes
    rows_of = {part: np.flatnonzero(rows) for part, rows in by_split.rows.items()}
    if not len(rows_of["train"]):
        raise Refused(
            f"split {options.train!r} to train on",
            f"{columns.there} {known} and {int((columns.split < 0).sum())} images without a split",
            "name one with --train-split" if names else f"{columns.split_remedy}, or hold out with --holdout",
        )
    if len(rows_of["test"]) and options.holdout:
        raise Refused(
            f"--holdout, and the split {options.test!r} of {len(rows_of['test'])} images",
            "A test part is cut only where none is given",
            "leave --holdout out, or name another split with --test-split",
        )
    if not len(rows_of["test"]) and not options.holdout:
        raise Refused(
            f"split {options.test!r} to test on",
            f"{columns.there} {known} and {int((columns.split < 0).sum())} images without a split",
            "name one with --test-split, or hold out 20 % of the train part by patient with --holdout",
        )
    if note := others_note(by_split.others):
        notes.append(note)
    return rows_of, by_split.others


def _validation(
    train: Rows, labelled: NDArray[np.bool_], cutter: "_Cutter", options: SplitOptions
) -> tuple[Rows, Rows, str]:
    """Cut a validation part from train if there is none; return (train, validation, a note)."""
    if options.mode == "as-published":
        rows = train[labelled[train]]
        order = published_validation(len(rows))
        count = int(VALIDATION * len(rows))
        note = (
            f"Validation: {count} of {len(rows)} train images drawn as the study did, patients may straddle"
        )
        return rows[order[count:]], rows[order[:count]], note
    val = cutter.cut(train, options.fraction, "val")
    note = f"Validation: {options.fraction:.0%} of the train part's {cutter.kind}, seed {options.seed}"
    return np.setdiff1d(train, val), val, note


@dataclass(frozen=True)
class _Cutter:
    columns: Columns
    labels: NDArray[np.integer[Any]]
    labelled: NDArray[np.bool_]
    seed: int

    @property
    def kind(self) -> str:
        return "patients (groups)" if len(self.columns.group_names) else "images, as none has a group"

    def cut(self, rows: Rows, fraction: float, purpose: str) -> Rows:
        """Choose the units to cut off; return their rows, ascending. Rows without a label stay."""
        rows = rows[self.labelled[rows]]
        if not len(rows):
            return rows
        units, unit = np.unique(self.columns.units[rows], return_inverse=True)
        stratum = self._strata(rows, unit, len(units))
        size = np.bincount(unit)
        keys = np.array([self._key(int(unit_code), purpose) for unit_code in units], np.uint64)
        order = np.lexsort((keys, stratum))
        taken = np.zeros(len(units), np.bool_)
        for members in np.split(order, np.flatnonzero(np.diff(stratum[order])) + 1):
            taken[members[: _nearest(size[members], fraction)]] = True
        return rows[taken[unit]]

    def _strata(self, rows: Rows, unit: NDArray[np.intp], units: int) -> NDArray[np.int64]:
        """Rank the rarest class (finding) of each unit's rows by its number of rows, int64 [units]."""
        labels = self.labels[rows]
        if labels.ndim == 1:
            return rarest_class(labels, int(labels.max()) + 1, unit, units)
        hits = labels > 0
        counts = hits.sum(axis=0)
        order = np.argsort(counts, kind="stable")
        first = np.where(hits.any(axis=1), hits[:, order].argmax(axis=1), len(counts))
        strata = np.full(units, len(counts), np.int64)
        np.minimum.at(strata, unit, first)
        return strata

    def _key(self, unit: int, purpose: str) -> int:
        names = self.columns.group_names
        kind, name = ("group", names[unit]) if unit < len(names) else (
            "image", self.columns.image_ids[unit - len(names)]
        )  # fmt: skip
        return unit_key(self.seed, purpose, kind, name)


def _nearest(sizes: NDArray[np.integer[Any]], fraction: float) -> int:
    """Return how many units of a stratum come nearest to the fraction of its rows: at least one, not all."""
    if len(sizes) < 2:
        return 0
    gaps = np.abs(np.cumsum(sizes)[:-1] - fraction * sizes.sum())
    return int(gaps.argmin()) + 1


def _usable(assigned: dict[str, Rows], labelled: NDArray[np.bool_], ok: NDArray[np.bool_]) -> dict[str, Rows]:
    rows_of = {part: rows[labelled[rows] & ok[rows]] for part, rows in assigned.items()}
    for part, rows in rows_of.items():
        if not len(rows):
            meant = assigned[part]
            raise Refused(
                f"No usable {part} row among {len(meant)} ({int((~ok[meant]).sum())} failed, "
                f"{int((ok & ~labelled)[meant].sum())} without a label)",
                "Every part needs images with an embedding and a label",
                "check the split and label columns (`embank manifest check`) and the failures "
                "(`embank bank show --failures`)",
            )
    return rows_of


def _masked(assigned: dict[str, Rows], labelled: NDArray[np.bool_], ok: NDArray[np.bool_]) -> dict[str, int]:
    rows = np.concatenate(list(assigned.values()))
    return {"failed": int((~ok[rows]).sum()), "unlabelled": int((ok[rows] & ~labelled[rows]).sum())}


def _look(
    rows_of: dict[str, Rows], labels: NDArray[np.integer[Any]], names: Sequence[str]
) -> tuple[tuple[int, ...], tuple[ValidityIssue, ...]]:
    """Refuse parts that cannot be learnt or tested.

    Returns the classes of test rows that were never trained on, and issues of missing and small classes.
    """
    codes_of = {part: labels[rows] for part, rows in rows_of.items()}
    held = {part: set(np.unique(codes).tolist()) for part, codes in codes_of.items()}
    if len(held["train"]) < 2:
        raise Refused(
            f"{len(held['train'])} class among {len(rows_of['train'])} train images",
            "A probe tells at least two classes apart",
            "add train images of another class, or choose another split or label column",
        )
    unseen = held["test"] - held["train"] - held["val"]
    return tuple(sorted(unseen)), tuple(class_issues(codes_of, names))
