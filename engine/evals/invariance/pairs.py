"""Pairs of images of one study for multi-view invariance, by the columns study (or group) and view."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.common.advice import name_column
from engine.evals.common.features import Features
from engine.evals.invariance.options import MultiViewOptions


@dataclass(frozen=True)
class Pairs:
    """Rows that show one study.

    Attributes:
        first, second: intp [n], rows of the features.
        views: names of the two views. by: what the images of a pair share, `study` or `group`.
        left_out: first-view images without a partner, and pairs that failed or differ in label.
    """

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    views: tuple[str, str]
    by: str
    left_out: dict[str, int]


def find_pairs(features: Features, options: MultiViewOptions) -> Pairs:
    """Pair images by `study` (else `group`) and `view`.

    Raises:
        Refused: neither studies nor groups, not exactly two views, or no pair.
    """
    view, study, ok = _texts(features, "view"), _texts(features, "study"), features.ok
    by = "study" if (study != "").any() else "group"
    shared = study if by == "study" else _texts(features, "group")
    label = features.labels.codes if options.same_label else np.zeros(len(features), np.int64)
    if not (shared != "").any():
        raise Refused(
            "The manifest has neither studies nor groups",
            "Two views belong together by the column study, or group where there is none",
            name_column("group"),
        )
    views = _views(view, options.pair)
    partner: dict[str, int] = {}
    for row in np.flatnonzero((view == views[1]) & (shared != "")).tolist():
        partner.setdefault(shared[row], row)
    left_out = {"without_partner": 0, "failed": 0, "other_label": 0}
    first, second = [], []
    for row in np.flatnonzero(view == views[0]).tolist():
        other = partner.get(shared[row])
        if other is None:
            left_out["without_partner"] += 1
        elif not (ok[row] and ok[other]):
            left_out["failed"] += 1
        elif label[row] != label[other]:
            left_out["other_label"] += 1
        else:
            first.append(row)
            second.append(other)
    if not first:
        raise Refused(
            f"No pair of {views[0]} and {views[1]} in one {by} ({left_out})",
            "Multi-view invariance compares pairs",
            "check the columns view and study of the manifest",
        )
    return Pairs(np.array(first, np.intp), np.array(second, np.intp), views, by, left_out)


def _texts(features: Features, column: str) -> NDArray[np.object_]:
    """Return a column as texts [N], "" where missing."""
    codes, names = features.texts(column)
    return np.array([*names, ""], dtype=object)[codes]


def _views(view: NDArray[np.object_], pair: tuple[str, str] | None) -> tuple[str, str]:
    values, counts = np.unique(view[view != ""].astype(str), return_counts=True)
    if pair is not None:
        if pair[0] == pair[1] or not set(pair) <= set(values.tolist()):
            raise Refused(
                f"views {pair[0]!r} and {pair[1]!r}",
                f"The column view has {', '.join(values.tolist()) or 'no values'}",
                "name two of these",
            )
        return pair
    if len(values) != 2:
        raise Refused(
            f"{len(values)} views ({', '.join(map(str, values[:5]))})",
            "Two are compared",
            "name them with --pair FIRST,SECOND" if len(values) > 2 else "fill the manifest's column view",
        )
    rarer = int(counts.argmin())  # every lateral has a frontal, not every frontal a lateral
    return str(values[rarer]), str(values[1 - rarer])
