"""Paired differences between two records of one model: what a way of measuring changes, on the same images.

Two records are paired where the mean of their values, image by image or episode by episode, is the number
that each of them reports, and these are the same images or episodes; otherwise their numbers are only
subtracted. The interval of paired differences is cluster-robust, over patients where they are known.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from benchmarks.paper.names import DIFFUSION, INVARIANCES
from benchmarks.paper.ours import Measured
from engine.kernels.intervals.cluster_robust import compact_groups, ratio_interval
from engine.report.record_values import text
from stores.backends.location import Place
from stores.bank.layout import MANIFEST
from stores.bank.predictions import read_predictions_of
from stores.bank.reader import Bank
from stores.errors import BankError, MachineFault, Refused

#: How far the mean of a table's values may lie from the record's number, in units of the metric.
_SAME = 1e-6


@dataclass(frozen=True)
class Effect:
    """A difference between two numbers, second minus first.

    Attributes:
        difference: in the metric's unit; NaN where one is undefined.
        low, high: 95 % interval; NaN where there is none.
        n: paired units, 0 where they are not paired.
        over: what they are, e.g. `images`.
        reason: why they are not paired; "" where they are.
    """

    difference: float
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    over: str = ""
    reason: str = ""

    @property
    def paired(self) -> bool:
        """Return whether the interval is of paired differences."""
        return self.n > 0


@dataclass(frozen=True)
class _Units:
    """Values whose mean is a record's number, with names that tell whether two records have the same ones."""

    names: tuple[str, ...]
    values: NDArray[np.float64]
    over: str
    same_as: str = ""


def effect(first: Measured, second: Measured) -> Effect:
    """Return the difference of two values of one data set and metric, paired where that is possible."""
    difference = second.value - first.value
    if not math.isfinite(difference):
        return Effect(difference, reason="a number is undefined")
    try:
        a, b = _units(first), _units(second)
    except (BankError, Refused, MachineFault) as error:
        return _unpaired(first, second, f"predictions cannot be read: {error.found}")
    if a is None or b is None:
        return _unpaired(first, second, "the records keep no values of single images that average to it")
    if (a.same_as, a.names) != (b.same_as, b.names):
        return _unpaired(first, second, f"other {a.over}")
    groups = _groups(first, a.names) if a.over == "images" else np.arange(len(a.names))
    totals: NDArray[np.float64] = np.zeros(int(groups.max()) + 1)
    np.add.at(totals, groups, b.values - a.values)
    interval = ratio_interval(totals, np.bincount(groups).astype(np.float64))
    return Effect(difference, interval.low, interval.high, len(a.names), a.over)


def _unpaired(first: Measured, second: Measured, reason: str) -> Effect:
    difference = second.value - first.value
    if first.ci95 is None or second.ci95 is None:
        return Effect(difference, reason=reason)
    half = math.hypot(first.ci95, second.ci95)
    return Effect(difference, difference - half, difference + half, reason=reason)


def _units(value: Measured) -> _Units | None:
    """Read the values that a number is the mean of; None where there are none."""
    units = _read(value)
    if units is None or not len(units.values) or not abs(units.values.mean() - value.value) <= _SAME:
        return None
    return units


def _read(value: Measured) -> _Units | None:
    assert value.origin is not None
    entry, metric = value.origin.entry, value.metric
    assert entry.record is not None
    if not entry.record.predictions:
        return None

    def columns(table: str, *names: str) -> dict[str, list[object]]:
        assert value.origin is not None
        body = read_predictions_of(value.origin.bank, entry, table)
        own: dict[str, list[object]] = body.select([n for n in names if n in body.column_names]).to_pydict()
        return own

    if metric.startswith("few_shot"):
        episodes = columns("episodes", "episode", "accuracy")
        names = tuple(map(str, episodes["episode"]))
        drawn = text(entry.record.metrics.get("episodes_digest"))
        return _Units(names, 100 * _floats(episodes["accuracy"]), "episodes", drawn)
    if metric.endswith("accuracy_pct"):
        return _classified(columns("", "image_id", "truth", "predicted"), "mean_per_class" in metric)
    if metric in INVARIANCES.values():
        return _by_image(columns("images", "image_id", "cosine"), "cosine")
    if metric == DIFFUSION:
        return _by_image(columns("", "image_id", metric), metric)
    return None


def _floats(column: list[object]) -> NDArray[np.float64]:
    return np.array([math.nan if cell is None else cell for cell in column], np.float64)


def _classified(table: Mapping[str, list[object]], per_class: bool) -> _Units:
    """Return the answers as percent; with `per_class` weighted so that their mean is that of the classes."""
    truth, predicted = (np.array(table[name], dtype=object) for name in ("truth", "predicted"))
    values = 100.0 * (truth == predicted)
    if per_class:
        _, codes, counts = np.unique(truth.astype(str), return_inverse=True, return_counts=True)
        values = values * len(truth) / (len(counts) * counts[codes])
    return _Units(tuple(map(str, table["image_id"])), values, "images")


def _by_image(table: Mapping[str, list[object]], column: str) -> _Units | None:
    if "image_id" not in table or column not in table:
        return None  # pairs of views have two images
    values = _floats(table[column])
    usable = np.isfinite(values)
    names = tuple(str(name) for name, use in zip(table["image_id"], usable, strict=True) if use)
    return _Units(names, values[usable], "images")


def _groups(value: Measured, names: tuple[str, ...]) -> NDArray[np.int64]:
    """Return the patients of images; an image without one, or of another manifest, is its own patient."""
    assert value.origin is not None
    bank = Bank.open(value.origin.bank)
    patients = _patients(bank.path, bank.files[MANIFEST])
    codes: dict[str, int] = {}
    numbers = [codes.setdefault(patients[name], len(codes)) if patients.get(name) else -1 for name in names]
    return compact_groups(np.array(numbers, np.int64))


@lru_cache(maxsize=4)
def _patients(bank: Place, digest: str) -> dict[str, str]:
    """Map images to patients, once for the manifest of this SHA-256."""
    manifest = Bank.open(bank).manifest()
    if not manifest.has("group"):
        return {}
    return dict(zip(manifest.image_ids, manifest.column("group"), strict=True))
