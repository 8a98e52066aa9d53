"""Multi-view invariance: two pictures of one study or patient, compared by their stored features alone.

Frontal and lateral (CheXpert), left and right eye (EyePACS). The scored patients are halved; each half is
whitened by mean and covariance of all images of other patients than its own, so that no pair helps to make
its own yardstick, even where every image of the bank is in a pair.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.common.advice import name_column
from engine.evals.invariance.evaluate import baseline_reason, summarise, too_few
from engine.evals.invariance.statistics import Statistics, statistics
from engine.kernels.cluster_robust import across_groups, own_groups
from engine.kernels.covariance import Arithmetic
from engine.kernels.whitening import BLOCK_ROWS, Regularisation, Whitening
from engine.versions import versions
from stores.bank.reader import Bank
from stores.bank.records import RunRecord, keep
from stores.limits import check_seed

if TYPE_CHECKING:
    from stores.manifest.manifest import Manifest


@dataclass(frozen=True)
class MultiViewOptions:
    """What to pair and how to compare.

    Attributes:
        pair: the two values of the view column, e.g. ("lateral", "frontal"); None takes the only two there
            are. Every image of the first view is paired with the first image of the second view in its study.
        images: pairs drawn, without replacement; None takes all.
        same_label: only pairs whose two images have one label, as the study pairs eyes.
        regularisation, arithmetic, seed: as for synthetic transforms.
    """

    pair: tuple[str, str] | None = None
    images: int | None = None
    same_label: bool = False
    regularisation: Regularisation = Regularisation()  # noqa: RUF009 - frozen
    arithmetic: Arithmetic = "float64"
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)


@dataclass(frozen=True)
class Pairs:
    """Rows that show one study.

    Attributes:
        first, second: rows; view names are in `views`, what they share in `by` (study or group).
        left_out: first-view images without a partner, and pairs that failed or differ in label.
    """

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    views: tuple[str, str]
    by: str
    left_out: dict[str, int]


def find_pairs(manifest: "Manifest", ok: NDArray[np.bool_], options: MultiViewOptions) -> Pairs:
    """Pair the images of a manifest by its columns `study` (else `group`) and `view`.

    Raises:
        Refused: no such columns, not exactly two views, or no pair.
    """
    frame = manifest.frame
    view = frame["view"].fillna("").astype(str).to_numpy()
    study = frame["study"].fillna("").astype(str).to_numpy()
    by = "study" if (study != "").any() else "group"
    shared = study if by == "study" else frame["group"].fillna("").astype(str).to_numpy()
    label = frame["label"].fillna("").astype(str).to_numpy()
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
        elif options.same_label and label[row] != label[other]:
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


def _views(view: NDArray[Any], asked: tuple[str, str] | None) -> tuple[str, str]:
    values, counts = np.unique(view[view != ""], return_counts=True)
    if asked is not None:
        if asked[0] == asked[1] or not set(asked) <= set(values.tolist()):
            raise Refused(
                f"views {asked[0]!r} and {asked[1]!r}",
                f"The column view has {', '.join(values.tolist()) or 'no values'}",
                "name two of these",
            )
        return asked
    if len(values) != 2:
        raise Refused(
            f"{len(values)} views ({', '.join(map(str, values[:5]))})",
            "Two are compared",
            "name them with --pair FIRST,SECOND" if len(values) > 2 else "fill the manifest's column view",
        )
    rarer = int(counts.argmin())  # every lateral has a frontal, not every frontal a lateral
    return str(values[rarer]), str(values[1 - rarer])


def multiview_from_bank(
    bank: Path | str, model: str, options: MultiViewOptions, *, device: str = "cpu"
) -> dict[str, Any]:
    """Mean cosine of whitened deviations over pairs; keeps a RunRecord. Opens no image.

    Args:
        model: slug or feature name.
        device: of the products, `cpu` or `cuda:N`.

    Returns:
        `{model, transform: "multi-view", cosine, ci95, baseline, n, ...}`; the interval is over patients, the
        baseline over all pairs of a first view and a second view of different patients of one half.

    Raises:
        Refused: as `find_pairs`, `statistics`; fewer pairs than asked for; pairs of one patient only.
    """
    start = time.perf_counter()
    store = Bank.open(bank)
    features = store.features(model)
    pairs = find_pairs(store.manifest(), features.ok, options)
    chosen = _choose(len(pairs.first), options)
    first, second = pairs.first[chosen], pairs.second[chosen]
    groups = _patients(store, first, second)
    halves = _halves(groups[first], options.seed)
    cosine, distance = np.empty(len(first)), np.empty(len(first))
    found: list[Statistics] = []
    unit = []
    for half in (0, 1):
        at = np.flatnonzero(halves == half)
        rows = np.flatnonzero(features.ok & ~np.isin(groups, groups[first[at]]))
        if len(rows) < 2:
            raise Refused(
                f"{len(rows)} images of other patients than the pairs'",
                "Mean and covariance come from other patients",
                "add images of other patients",
            )
        made = statistics(
            features, rows, options.regularisation, arithmetic=options.arithmetic, device=device
        )
        found.append(made)
        whitening = Whitening(made.whitener, arithmetic=options.arithmetic, device=device)
        a, b, cosine[at], distance[at] = _compare(whitening, features.array, first[at], second[at])
        unit.append((a, b, groups[first[at]]))
    summary = summarise(cosine[:, None], distance[:, None], groups[first])
    baseline, ci95, count = _baseline(unit)
    entry = {
        "model": features.title,
        "feature": features.name,
        "mode": "default",
        "transform": "multi-view",
        **summary,
        "baseline": baseline,
        "baseline_ci95": ci95,
        **baseline_reason(ci95),
        "baseline_pairs": count,
        **too_few(summary["n"], "pairs"),
        "views": list(pairs.views),
        "paired_by": pairs.by,
        "pairs_found": len(pairs.first),
        "left_out": pairs.left_out,
        "same_label": options.same_label,
        "seed": options.seed,
        "arithmetic": options.arithmetic,
        "covariance": [each.to_dict() for each in found],
        "seconds": round(time.perf_counter() - start, 4),
    }
    asked = ("model", "mode", "transform", "views", "same_label", "seed", "arithmetic")
    apart = (*asked, "feature", "covariance", "left_out", "seconds")
    record = RunRecord.now(
        kind="invariance",
        asked={**{name: entry[name] for name in asked}, "images": options.images},
        used={
            "feature": features.name,
            "key": features.key.digest,
            "manifest_digest": store.manifest_digest,
            "rows": {"first": first, "second": second},
            "covariance": entry["covariance"],
            "device": device,
        },
        metrics={name: value for name, value in entry.items() if name not in apart},
        seconds={"total": entry["seconds"]},
        versions=versions(),
        failures=pairs.left_out,
    )
    keep(record, store.path, entry)
    return entry


def _choose(count: int, options: MultiViewOptions) -> NDArray[np.intp]:
    if options.images is None:
        return np.arange(count)
    if not 1 <= options.images <= count:
        raise Refused(
            f"{options.images} pairs of {count} that can be made",
            "No pair is drawn twice",
            f"ask for 1 to {count}, or leave --images out for all",
        )
    return np.sort(np.random.default_rng(options.seed).permutation(count)[: options.images])


def _patients(store: Bank, first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.int64]:
    """int64 [N] groups of all rows; the two of a pair are one where the manifest names no group."""
    codes = store.column("group")[0].astype(np.int64)
    top = int(codes.max(initial=-1)) + 1
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        if codes[a] < 0 or codes[b] < 0:
            shared = max(codes[a], codes[b])
            if shared < 0:
                shared, top = top, top + 1
            codes[a] = codes[b] = shared
    return own_groups(codes)


def _halves(groups: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """0 or 1 for each pair, by patient."""
    names, codes = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise Refused("Pairs of one patient only", "Two patients are needed to halve them", "add pairs")
    order = np.random.default_rng((seed, 1)).permutation(len(names))
    half = np.zeros(len(names), np.int64)
    half[order[: len(names) // 2]] = 1
    return np.asarray(half[codes])


def _compare(
    whitening: Whitening, features: NDArray[Any], first: NDArray[np.intp], second: NDArray[np.intp]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    """Unit vectors of both views (float32: 8 d bytes a pair), the pairs' cosines and distances."""
    count, rank = len(first), whitening.whitener.rank
    a, b = np.empty((count, rank), np.float32), np.empty((count, rank), np.float32)
    cosine, distance = np.empty(count), np.empty(count)
    for start in range(0, count, BLOCK_ROWS):
        at = slice(start, start + BLOCK_ROWS)
        x, y = (whitening(features[rows[at]]).astype(np.float64) for rows in (first, second))
        distance[at] = np.linalg.norm(x - y, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
        cosine[at] = np.einsum("ij,ij->i", x, y)
        a[at], b[at] = x, y
    return a, b, cosine, distance


def _baseline(
    halves: list[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]],
) -> tuple[float, float, int]:
    """Mean over pairs of different patients within each half, weighted by their number; its interval."""
    means, errors, counts = [], [], []
    for a, b, groups in halves:
        known = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
        interval, count = across_groups(a[known], b[known], groups[known])
        if count:
            means.append(interval.mean)
            errors.append(interval.ci95)
            counts.append(count)
    if not counts:
        return float("nan"), float("nan"), 0
    share = np.array(counts) / sum(counts)
    return float(share @ means), float(np.sqrt(share**2 @ np.square(errors))), sum(counts)
