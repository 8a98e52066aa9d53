"""Give the images of a manifest a split, or folds, that divide no patient (`stores.manifest.cutting`)."""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stores.errors import Refused
from stores.limits import check_seed, check_whole
from stores.manifest.cutting import Numbers, Units, by_ratios, into_folds
from stores.manifest.manifest import Manifest
from stores.manifest.uri_policy import shown

if TYPE_CHECKING:
    import pyarrow as pa

#: Names of the parts, by how many there are.
PARTS = {2: ("train", "test"), 3: ("train", "val", "test")}
FOLD = "fold"
#: A part whose share of the images is off by more is said to be.
_OFF = 0.05
_SHOWN = 3


@dataclass(frozen=True)
class CutOptions:
    """How a manifest is cut: by `ratios`, or into `folds`.

    Attributes:
        ratios: shares of train and test, or of train, val and test; each above 0, 1 together.
        folds: how many, at least 2.
        fold: the one that is the test part; None writes the folds, and no split.
        seed: another seed gives another cut.
        stratify: by label.
        replace: a split or folds that the manifest has already.

    Raises:
        Refused: when made, for what cannot be.
    """

    ratios: tuple[float, ...] | None = None
    folds: int | None = None
    fold: int | None = None
    seed: int = 0
    stratify: bool = True
    replace: bool = False

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if (self.ratios is None) == (self.folds is None):
            raise Refused(
                "Neither ratios nor folds" if self.ratios is None else "Ratios and folds",
                "A manifest is cut by the one or the other",
                "write for instance --ratios 0.7,0.1,0.2 or --folds 5",
            )
        if self.ratios is not None:
            _check_ratios(self.ratios)
        if self.fold is not None and self.folds is None:
            raise Refused(
                f"fold {self.fold} without folds", "It is one of them", "add --folds, or leave it out"
            )
        if self.folds is not None:
            check_whole("folds", self.folds, 2, 1 << 20)
            if self.fold is not None:
                check_whole("fold", self.fold, 0, self.folds - 1)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are written."""
        if self.folds is None:
            return ("split",)
        return (FOLD,) if self.fold is None else ("split", FOLD)


def _check_ratios(ratios: tuple[float, ...]) -> None:
    text = ",".join(f"{ratio:g}" for ratio in ratios)
    right = len(ratios) in PARTS and all(0 < ratio < math.inf for ratio in ratios)
    if right and math.isclose(sum(ratios), 1, abs_tol=1e-6):
        return
    remedy = "write for instance --ratios 0.8,0.2 or --ratios 0.7,0.1,0.2"
    if right and math.isfinite(sum(ratios)):
        remedy = f"write --ratios {','.join(f'{ratio / sum(ratios):.12g}' for ratio in ratios)}"
    raise Refused(
        f"ratios {text[:60]}",
        "They are the shares of train and test, or of train, val and test: each above 0, and 1 together",
        remedy,
    )


@dataclass(frozen=True)
class Cut:
    """A manifest that was cut.

    Attributes:
        manifest: with the new columns; its notes say what a reader of the split must know.
        by: what was not divided, `group` or `image`.
        splits, folds: name -> `{images, groups, classes}` of each part; `groups` counts what was not divided,
            `classes` maps labels to images, the empty text standing for none. Empty where not written.
    """

    manifest: Manifest
    by: str
    splits: dict[str, dict[str, Any]]
    folds: dict[str, dict[str, Any]]


def split_manifest(manifest: Manifest, options: CutOptions) -> Cut:
    """Cut a manifest by patient, or by image where no row names its group.

    Raises:
        Refused: a split or folds that are there already, or too few patients for a part.
    """
    _refuse_existing(manifest, options)
    groups = manifest.codes("group")
    units = Units.of(
        manifest.image_ids,
        groups,
        manifest.codes("label") if options.stratify else None,
        options.seed,
        "folds" if options.folds else "ratios",
    )
    by = "group" if groups[1] else "image"
    written = _cells(units, options, by)
    made = dataclasses.replace(manifest, table=_with_columns(manifest.table, written))
    parts = {
        name: {
            part: _counts(manifest, units, np.flatnonzero(np.array(cells) == part))
            for part in _order(cells, options)
        }
        for name, cells in written.items()
    }
    notes = [*manifest.notes, *_group_notes(groups[0], by), *_class_notes(manifest, units, options, by)]
    notes += _share_notes(parts.get("split", {}), len(manifest), options)
    return Cut(dataclasses.replace(made, notes=tuple(notes)), by, parts.get("split", {}), parts.get(FOLD, {}))


def _refuse_existing(manifest: Manifest, options: CutOptions) -> None:
    for name in options.columns:
        if manifest.has(name) and not options.replace:
            counts = Counter(manifest.column(name))
            have = ", ".join(f"{value or '(none)'} {n:,}" for value, n in counts.most_common(5))
            raise Refused(
                f"The manifest has a column {name} already ({have})",
                "A split that came with the images is not replaced unasked",
                "use the manifest as it is, or add --replace-split",
            )


def _cells(units: Units, options: CutOptions, by: str) -> dict[str, list[str]]:
    """The columns that are written: name -> cells."""
    count, what = len(units.sizes), "patients (groups)" if by == "group" else "images"
    if options.ratios is not None:
        names = PARTS[len(options.ratios)]
        part = by_ratios(units, options.ratios)
        for empty in set(range(len(names))) - set(part.tolist()):
            raise Refused(
                f"The part {names[empty]} would be empty: {count} {what}",
                "A class of fewer patients than parts is in train first, then in test",
                "cut into fewer parts, or add --no-stratify" if options.stratify else "cut into fewer parts",
            )
        return {"split": [names[each] for each in part.tolist()]}
    folds = options.folds or 0
    check_whole("folds", folds, 2, count, f"there are {count} {what}: choose fewer folds")
    fold: Numbers = into_folds(units, folds)
    columns = {FOLD: [str(each) for each in fold.tolist()]}
    if options.fold is not None:
        columns["split"] = ["test" if each == options.fold else "train" for each in fold.tolist()]
    return columns


def _with_columns(table: "pa.Table", columns: dict[str, list[str]]) -> "pa.Table":
    import pyarrow as pa

    for name, cells in columns.items():
        column = pa.chunked_array([pa.array(cells, pa.large_string())])
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, column)
        else:
            table = table.append_column(name, column)
    return table


def _order(cells: Sequence[str], options: CutOptions) -> list[str]:
    present = set(cells)
    if "train" in present:
        return [name for name in PARTS[3] if name in present]
    return sorted(present, key=int)


def _counts(manifest: Manifest, units: Units, rows: "np.ndarray[Any, np.dtype[np.intp]]") -> dict[str, Any]:
    labels, names = manifest.codes("label")
    counts = np.bincount(labels[rows] + 1, minlength=len(names) + 1).tolist()
    classes = {label: n for label, n in zip(["", *names], counts, strict=True) if n}
    return {"images": len(rows), "groups": len(np.unique(units.of_row[rows])), "classes": classes}


# What a reader of the split must know


def _group_notes(groups: "np.ndarray[Any, np.dtype[np.int32]]", by: str) -> list[str]:
    if by == "image":
        return [
            "no row names its group (patient): cut by image, so that one patient may stand in several parts"
        ]
    missing = int((groups < 0).sum())
    return [f"{missing:,} rows have no group: each counts as a patient of its own"] if missing else []


def _class_notes(manifest: Manifest, units: Units, options: CutOptions, by: str) -> list[str]:
    """Which classes cannot be in all parts."""
    parts = options.folds or len(options.ratios or ())
    labels, names = manifest.codes("label")
    if not names:
        return ["no row has a label: not stratified"] if options.stratify else []
    pairs = np.unique(np.stack([labels, units.of_row])[:, labels >= 0], axis=1)
    counts = np.bincount(pairs[0], minlength=len(names)).tolist()
    few = sorted((count, name) for count, name in zip(counts, names, strict=True) if count < parts)
    if not few:
        return []
    examples = ", ".join(f"{shown(name)} with {count}" for count, name in few[:_SHOWN])
    more = ", ..." * (len(few) > _SHOWN)
    what = "patients" if by == "group" else "images"
    return [f"{len(few)} classes have fewer {what} than there are parts: {examples}{more}"]


def _share_notes(splits: dict[str, dict[str, Any]], rows: int, options: CutOptions) -> list[str]:
    if options.ratios is None:
        return []
    shares = {name: counts["images"] / rows for name, counts in splits.items()}
    return [
        f"{name} has {shares[name]:.1%} of the images, not {ratio:.1%}: patients are not divided, and each "
        "class gives each part one where it can"
        for name, ratio in zip(splits, options.ratios, strict=True)
        if abs(shares[name] - ratio) > _OFF
    ]
