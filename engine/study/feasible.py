"""Cells that cannot be made, and why: options that a mode excludes, and what a data set does not have."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from engine import datasets
from engine.errors import Refused
from engine.study.cells import COMPARE
from engine.study.image_sets import ImageSet, images_by_cell
from engine.study.kinds import KINDS_BY_NAME
from engine.study.options import options_of
from engine.study.study import Cell, Study
from stores.bank.layout import MANIFEST
from stores.json_types import Json

#: Adapters whose manifests say which view an image is, so that views of a study can be paired.
_WITH_VIEWS = ("chestx", "chexpert", "dicom", "eyepacs")


@dataclass(frozen=True)
class Why:
    """Why a cell cannot be made, and what to do."""

    reason: str
    remedy: str


@dataclass(frozen=True)
class ImageFacts:
    """What is known of an image set before it is evaluated.

    Attributes:
        classes: label -> images; empty where that is unknown.
        columns: of the manifest; empty where that is unknown.
        views: whether a column says which view an image is; None where that is unknown.
    """

    classes: Mapping[str, int] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    views: bool | None = None


def image_facts(images: ImageSet, manifest: Path | None) -> ImageFacts:
    """Return what an image set's manifest says, or where there is none what its adapter knows.

    Args:
        manifest: that is there; None where it is still to be made.
    """
    columns = columns_of(manifest) if manifest is not None else ()
    builtin = images.data.builtin
    if builtin is None:
        return ImageFacts({}, columns, None if manifest is None else _has_views(manifest, columns))
    views = builtin in _WITH_VIEWS
    classes = {label: count for label, count in counts_of(images).items() if label}
    return ImageFacts(classes, columns, views)


def counts_of(images: ImageSet) -> Mapping[str, int]:
    """Return the images that the adapter promises of the complete set: label -> number, "" for unlabelled.

    Empty where that is unknown, as for the user's own images.
    """
    if images.data.builtin is None:
        return {}
    data_set = datasets.load(images.data.builtin)
    expected = getattr(data_set, "expected", None)
    try:
        counts: Mapping[str, int] = (
            expected(images.mode, **images.build) if expected else data_set.facts.classes
        )
    except Refused:  # of options that only the files can decide about
        return {}
    return counts


def columns_of(manifest: Path) -> tuple[str, ...]:
    """Return the columns of a manifest; none where it cannot be read, which its reader reports."""
    try:
        if manifest.suffix.lower() == ".csv":
            with manifest.open(encoding="utf-8-sig") as file:
                return tuple(name.strip().strip('"') for name in file.readline(1 << 16).split(","))
        from pyarrow import parquet

        return tuple(parquet.read_schema(manifest).names)
    except (OSError, ValueError):
        return ()


def _has_views(manifest: Path, columns: Sequence[str]) -> bool | None:
    """Return whether images are of two views or more; None where that is not known without reading it all."""
    if columns and "view" not in columns:
        return False
    if not columns or manifest.suffix.lower() == ".csv":
        return None
    from pyarrow import parquet

    try:
        values = parquet.read_table(manifest, columns=["view"])["view"].unique().to_pylist()
    except (OSError, ValueError):
        return None
    return len([value for value in values if value]) > 1


def impossible(study: Study, directory: Path, cells: Sequence[Cell]) -> dict[str, Why]:
    """Return the cells that cannot be made, by digest, and why.

    A comparison cannot be made if fewer than two of its models' cells can.

    Args:
        study: whose they are; directory: its folder, perhaps absent.
        cells: all of the study's.
    """
    facts: dict[str, ImageFacts] = {}
    whys: dict[str, Why] = {}
    possible: Counter[tuple[str, str, str, int, str]] = Counter()
    for cell, images in zip(cells, images_by_cell(study, cells), strict=True):
        if cell.kind == COMPARE:
            continue
        if images.name not in facts:
            facts[images.name] = image_facts(images, manifest_there(images, directory))
        why = why_impossible(cell, facts[images.name])
        if why is None:
            possible[_compared(cell)] += 1
        else:
            whys[cell.digest] = why
    for cell in cells:
        if cell.kind == COMPARE and possible[_compared(cell)] < 2:
            whys[cell.digest] = Why(
                f"Fewer than two models can have {cell.evaluation} on {cell.dataset}",
                "see why the models cannot",
            )
    return whys


def _compared(cell: Cell) -> tuple[str, str, str, int, str]:
    """Return what cells that are compared have in common."""
    return (cell.dataset, cell.evaluation, cell.mode, cell.seed, str(cell.options.get("label")))


def manifest_there(images: ImageSet, directory: Path) -> Path | None:
    """Return the manifest of an image set; None where it is still to be made."""
    for path in (images.bank(directory) / MANIFEST, images.manifest(directory)):
        if path.is_file():
            return path
    return None


def why_impossible(cell: Cell, facts: ImageFacts) -> Why | None:
    """Return why a cell cannot be made at all; None if nothing is known against it.

    What only the images show, e.g. that all of them are grey, is found out when the cell is evaluated.

    Args:
        cell: an evaluation, no comparison.
        facts: of its image set.
    """
    options = cell.options
    kind = KINDS_BY_NAME[cell.kind]
    refusal = _refusal(cell.kind, _hashable(options), cell.mode, cell.seed)
    if refusal is not None:
        return Why(kind.as_in_file(f"{refusal.found}: {refusal.rule}"), kind.as_in_file(refusal.remedy))
    if kind.name == "multiview" and facts.views is False:
        return Why(
            f"{cell.dataset} has one view of each image, or says of none which it is",
            "leave it out of the evaluation's datasets",
        )
    if kind.name == "fewshot" and facts.classes:
        return _too_few(cell, facts.classes)
    if kind.classifies and facts.columns:
        columns = [column for column in _wanted(options) if column not in facts.columns]
        if columns:
            return Why(
                f"{cell.dataset} has no column {columns[0]!r}",
                "name a column that it has as its label in the study, or add one to the manifest",
            )
    return None


def _wanted(options: Mapping[str, Json]) -> list[str]:
    """Return the columns that a cell needs."""
    labels = options.get("label", ["label"])
    strata = options.get("strata", [])
    words = [*labels, *strata] if isinstance(labels, list) and isinstance(strata, list) else []
    return [str(word).partition(":")[0] for word in words]


def _too_few(cell: Cell, classes: Mapping[str, int]) -> Why | None:
    """Return why episodes cannot be drawn from so few classes or images."""
    ways = cell.options.get("n_way")
    needed = _number(cell, "n_shot", 20) + _number(cell, "n_query", 15)
    large = {label: count for label, count in classes.items() if count >= needed}
    if isinstance(ways, int) and ways > len(classes):
        return Why(
            f"{cell.dataset} has {len(classes)} classes, not {ways}",
            f"set options: {{fewshot: {{n_way: {len(classes)}}}}} for {cell.dataset}",
        )
    least = ways if isinstance(ways, int) else 2
    if len(large) < least:
        return Why(
            f"{len(large)} classes of {cell.dataset} have the {needed} images of an episode",
            f"set options: {{fewshot: {{n_shot: ..., n_query: ...}}}} for {cell.dataset} to smaller numbers",
        )
    return None


def _number(cell: Cell, name: str, usual: int) -> int:
    value = cell.options.get(name, usual)
    return value if isinstance(value, int) else usual


def _hashable(options: Mapping[str, Json]) -> tuple[tuple[str, Any], ...]:
    return tuple((name, tuple(v) if isinstance(v, list) else v) for name, v in options.items())


@lru_cache(maxsize=4096)
def _refusal(kind: str, options: tuple[tuple[str, Any], ...], mode: str, seed: int) -> Refused | None:
    """Return what the evaluation's options refuse; cells of many models have the same ones."""
    try:
        options_of(kind, {name: [*v] if isinstance(v, tuple) else v for name, v in options}, mode, seed)
    except Refused as error:
        return error
    return None
