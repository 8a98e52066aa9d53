"""Metrics of a probe in strata of the test images, and the largest gap between strata."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.common.features import Features
from engine.evals.common.result import Metric
from engine.evals.probe.stratify import Stratify
from engine.kernels.codes import fill_singletons
from engine.kernels.intervals.metrics_bootstrap import percentiles_of
from engine.kernels.intervals.strata_bootstrap import Gap, largest_gap, resampled_in_strata
from engine.kernels.metrics import Codes, Evaluation, Floats
from stores.json_types import JsonObject

#: Fewest images of a stratum whose metrics are computed.
SMALLEST = 10
#: Most strata of a column.
MOST = 50
#: Metrics whose gap is reported.
GAPS = ("accuracy", "mean_per_class_accuracy", "auroc")


@dataclass(frozen=True, eq=False)
class Division:
    """The rows of features, divided.

    Attributes:
        column: of the manifest.
        codes: int64 [N], the stratum of each row; -1 where its cell is empty.
        names: of the strata.
    """

    column: str
    codes: NDArray[np.int64]
    names: tuple[str, ...]

    @classmethod
    def of(cls, features: Features, by: Stratify) -> "Division":
        """Divide by the texts of a column, or by the edges of a column of numbers.

        Raises:
            Refused: no such column, or a cell that is no number where there are edges.
        """
        cells = features.column(by.column)
        if cells.names is None:
            values, codes = np.unique(cells.codes, return_inverse=True)
            missing = int((values < 0).sum())
            codes, texts = codes.astype(np.int64) - missing, tuple(map(str, values[missing:].tolist()))
        else:
            codes, texts = cells.codes, tuple(cells.names)
        if not by.edges:
            return cls(by.column, codes, texts)
        numbers = [_number(by, text) for text in texts]
        place = np.searchsorted(by.edges, numbers, side="right")
        return cls(by.column, np.append(place, -1)[codes], by.names)


def _number(by: Stratify, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value != value:
        raise Refused(
            f"Column {by.column!r} holds {text!r}",
            f"Edges ({by.word}) divide a column of numbers",
            f"name the column alone: --strata {by.column}",
        )
    return value


@dataclass(frozen=True)
class Stratum:
    """The metrics of one stratum.

    Attributes:
        name: of the stratum.
        images, patients: tested; an image without a patient counts as one of its own.
        metrics: headline metrics by name, with intervals.
        reason: why all of them are undefined; "" if they are not.
    """

    name: str
    images: int
    patients: int
    metrics: Mapping[str, Metric]
    reason: str = ""

    def to_dict(self) -> JsonObject:
        """Return `{stratum, images, patients, ...}`."""
        body: JsonObject = {"stratum": self.name, "images": self.images, "patients": self.patients}
        if self.reason:
            body["reason"] = self.reason
        body |= {name: metric.value for name, metric in self.metrics.items()}
        body |= {f"{name}_reason": one.reason for name, one in self.metrics.items() if one.reason}
        intervals: JsonObject = {
            name: {"low": one.low, "high": one.high}
            for name, one in self.metrics.items()
            if one.low == one.low
        }
        return {**body, "intervals": intervals} if intervals else body


@dataclass(frozen=True)
class Strata:
    """The metrics in all strata of a column.

    Attributes:
        column: of the manifest.
        missing: test images whose cell is empty; they are in no stratum.
        strata: those that test images are in, in the order of their names.
        gaps: metric -> its largest gap; the positions are those of `strata`.
    """

    column: str
    missing: int
    strata: tuple[Stratum, ...]
    gaps: Mapping[str, Gap]

    def to_dict(self) -> JsonObject:
        """Return `{column, missing, strata, gaps}`."""
        names = [stratum.name for stratum in self.strata]
        return {
            "column": self.column,
            "missing": self.missing,
            "strata": [stratum.to_dict() for stratum in self.strata],
            "gaps": {name: gap.to_dict(names) for name, gap in self.gaps.items()},
        }


def in_strata(
    division: Division,
    rows: NDArray[np.intp],
    truth: Codes,
    probabilities: Floats,
    groups: NDArray[np.integer],
    *,
    resamples: int,
    seed: int,
    unseen: Sequence[int] = (),
) -> Strata:
    """Test in each stratum.

    Args:
        rows: of the features, n tested ones.
        truth, probabilities: of these, [n] and [n, K].
        groups: int [n], of patients, negative where unknown.
        resamples: for intervals over patients; 0 for none.
        unseen: classes that the fit does not know.

    Raises:
        Refused: too many strata.
    """
    own = division.codes[rows]
    present = [int(code) for code in np.unique(own[own >= 0])]
    if len(present) > MOST:
        raise Refused(
            f"{len(present)} values of column {division.column!r} among the test images",
            f"At most {MOST} strata are reported",
            f"give edges for a column of numbers, e.g. --strata {division.column}:40,60",
        )
    members = [np.flatnonzero(own == code) for code in present]
    patients = [len(np.unique(fill_singletons(groups[places]))) for places in members]
    reasons = [_too_small(len(places), count) for places, count in zip(members, patients, strict=True)]
    tests = [Evaluation.of(truth[places], probabilities[places], unseen=unseen) for places in members]
    drawn: dict[str, Floats] = {}
    why = "no resamples were drawn"
    if resamples and members:
        drawn, why = resampled_in_strata(
            truth, probabilities, groups, members, resamples=resamples, seed=seed, unseen=unseen
        )
    strata = []
    for s, (code, places, test) in enumerate(zip(present, members, tests, strict=True)):
        of_stratum = {name: values[:, s] for name, values in drawn.items()}
        metrics = {} if reasons[s] else _metrics(test, of_stratum, patients[s])
        strata.append(Stratum(division.names[code], len(places), patients[s], metrics, reasons[s]))
    occurring = len(np.unique(truth[own >= 0]))
    whole = [len(np.unique(truth[places])) == occurring for places in members]
    gaps = {name: _gap(name, strata, whole, drawn.get(name), why) for name in GAPS}
    return Strata(division.column, int((own < 0).sum()), tuple(strata), gaps)


def _too_small(images: int, patients: int) -> str:
    """Return why a stratum is not tested, or ""."""
    if images < SMALLEST:
        return f"fewer than {SMALLEST} images"
    return "one patient: an interval needs two" if patients < 2 else ""


def _metrics(test: Evaluation, drawn: Mapping[str, Floats], patients: int) -> dict[str, Metric]:
    """Return the headline metrics of a stratum with their intervals."""
    reasons = {
        "auroc": test.classification.auroc_reason,
        "average_precision": test.average_precision_reason,
        "log_loss": test.log_loss_reason,
    }
    metrics = {}
    for name, value in test.headline.items():
        reason = reasons.get(name, "")
        if name not in drawn:
            metrics[name] = Metric(value, reason=reason)
            continue
        interval = percentiles_of(drawn[name], value, patients)
        metrics[name] = Metric(value, interval.low, interval.high, reason or interval.reason)
    return metrics


def _gap(name: str, strata: Sequence[Stratum], whole: Sequence[bool], drawn: Floats | None, why: str) -> Gap:
    """Return the largest gap of a metric.

    Args:
        whole: strata in which all classes occur; means over classes are compared between these alone.
    """
    values = [
        stratum.metrics[name].value
        if name in stratum.metrics and (name == "accuracy" or complete)
        else math.nan
        for stratum, complete in zip(strata, whole, strict=True)
    ]
    return largest_gap(values, drawn, why)
