"""Prototype few-shot classification from stored features.

N-way K-shot episodes as in equation 1 of Anton et al., J. Imaging 2022, 8, 320 (doi 10.3390/jimaging8120320),
after Snell et al. 2017: a class's prototype is the mean of its K support features, a query takes the class
of the nearest prototype in squared Euclidean distance.

    from engine.evals.fewshot.evaluate import Protocol, fewshot
    result = fewshot(features, labels, Protocol(n_way=2, n_shot=5))
    result.accuracy, result.ci95, result.per_episode
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.common.compute import Compute, check_backend
from engine.evals.common.features import Features, Usable, is_torch
from engine.evals.common.groups import known_groups
from engine.evals.common.labels import Labels, label_codes
from engine.evals.common.predictions import Table, coded
from engine.evals.common.splits import SplitRows
from engine.evals.common.validity import ValidityIssue
from engine.evals.fewshot.options import MODES, Options, Protocol
from engine.evals.fewshot.pools import PUBLISHED_POOL, pool_issues, pools_of, resolved, too_few
from engine.evals.fewshot.predictors import check_backend_here, common_device, predictor
from engine.evals.fewshot.result import Difference, FewShotResult
from engine.evals.fewshot.run import Clock, Run
from engine.kernels import intervals
from engine.kernels.codes import fill_singletons, rows_by_code
from engine.runtime import Runtime, usable_cores
from stores.parquet import Column

__all__ = [
    "MODES",
    "PUBLISHED_POOL",
    "Difference",
    "FewShotResult",
    "Options",
    "Protocol",
    "Result",
    "compare",
    "evaluate",
    "evaluate_together",
    "fewshot",
]

Result = FewShotResult


def evaluate(features: Features, options: Options, compute: Compute) -> FewShotResult:
    """Run a protocol on features.

    Raises:
        Refused: fewer than N classes with K + Q usable images each, patients that cannot be kept apart, or
            an unknown split.
    """
    return evaluate_together([features], options, [compute])[0]


def evaluate_together(
    features: Sequence[Features], options: Options, computes: Sequence[Compute], clock: Clock | None = None
) -> list[FewShotResult]:
    """Run a protocol on several models' features of the same images, all on the same episodes.

    Rows that lack one model's embedding are left out for all. `FewShotResult.minus` gives paired differences.

    Args:
        features: of the same images; labels, patients and splits are those of the first.
        computes: one `Compute` for each model.
        clock: a clock that is running already; by default it starts now.

    Raises:
        Refused: as `evaluate`.
    """
    clock = clock or Clock()
    first, rows = features[0], len(features[0])
    _check_memory(options, computes[0], len(features))
    splits = _split(first, options.split)
    inside = None if splits is None else splits.rows["split"]
    read, have = first.labels, np.logical_and.reduce([model.ok for model in features])
    if inside is not None:
        read = Labels(np.where(inside, read.codes, -1), read.names)
    codes = label_codes(read).codes
    clock.lap("labels")
    usable = Usable.of(codes, have, inside)
    patients = known_groups(first.groups, rows, usable.rows)
    classes = rows_by_code(codes, usable.rows)
    protocol, notes, issues = resolved(options.protocol, patients, [len(part) for part in classes.values()])
    pools = pools_of(classes, codes, protocol, first.data_set)
    large = {c: part for c, part in pools.items() if len(part) >= protocol.n_shot + protocol.n_query}
    if len(large) < protocol.ways:
        raise too_few(pools, read.names, len(large), protocol, rows, codes, have)
    run = Run(protocol, list(large.values()), first.data_set, patients, rows)
    clock.lap("pools")
    keys = [str(place) for place in range(len(features))]
    predictors = {
        key: predictor(model, protocol.distance, compute)
        for key, model, compute in zip(keys, features, computes, strict=True)
    }
    clock.lap("device")
    device = common_device(predictors.values())
    if device is None:
        run.go(predictors, clock)
    else:
        from engine.evals.fewshot.device_run import go_on_device

        go_on_device(run, predictors, clock, device)
    drawable = np.zeros(rows, np.bool_)
    for part in pools.values():
        drawable[part] = True
    issues = (*issues, *pool_issues(pools, read.names, protocol))
    about = _About(
        first, options, protocol, notes, issues, patients, tuple(large), read, drawable, usable, splits
    )
    return [
        about.result(run, key, clock, compute.backend) for key, compute in zip(keys, computes, strict=True)
    ]


@dataclass(frozen=True, eq=False, repr=False)
class _About:
    """Data that the results of all models share."""

    features: Features
    options: Options
    protocol: Protocol
    notes: tuple[str, ...]
    validity: tuple[ValidityIssue, ...]
    patients: NDArray[np.int64] | None
    classes: tuple[int, ...]
    labels: Labels
    drawable: NDArray[np.bool_]
    usable: Usable
    splits: SplitRows | None

    @cached_property
    def units(self) -> NDArray[np.int64]:
        """int64 [N], the units of an interval: patients, or images where no patients are known."""
        rows = len(self.features)
        return fill_singletons(np.full(rows, -1) if self.patients is None else self.patients)

    def result(self, run: Run, key: str, clock: Clock, backend: str) -> FewShotResult:
        """Return the result of one model."""
        tally, names = run.tallies[key], self.labels.names
        interval = intervals.over_episodes(tally.accuracies, population=self.protocol.published)
        boot = per_patient = None
        if self.options.bootstrap:
            stream = self.protocol.identity(self.features.data_set).stream("bootstrap")
            boot = intervals.bootstrap_ratio(
                tally.correct, run.queries, self.units, self.options.bootstrap, stream
            )
        if self.patients is not None:
            per_patient = _per_patient(tally.correct, run.queries, self.units)
        clock.lap("intervals")
        rows = np.flatnonzero(run.queries)
        images: dict[str, Column] = {
            "truth": coded(self.labels.codes[rows], names),
            "queries": run.queries[rows].astype(np.int32),
            "correct": tally.correct[rows].astype(np.int32),
        }
        return FewShotResult(
            protocol=self.protocol,
            accuracy=interval.mean,
            ci95=interval.ci95,
            per_episode=tally.accuracies,
            used=int(np.count_nonzero(self.drawable)),
            masked=len(self.features) - len(self.usable.rows),
            classes=tuple(c if names is None else names[c] for c in self.classes),
            confusion=tally.confusion,
            episodes_digest=run.digest.hexdigest(),
            per_patient=per_patient,
            notes=self.notes,
            validity=self.validity,
            bootstrap=boot,
            seconds=clock.of(key),
            images=Table(images, {"": rows}),
            drawable=self.drawable,
            usable=self.usable,
            others={} if self.splits is None else self.splits.others,
            split_notes=() if self.splits is None else self.splits.notes,
            backend="faiss" if backend == "faiss" else "array",
        )


def _split(features: Features, word: str | None) -> SplitRows | None:
    """Find the rows of the requested split."""
    if word is None:
        return None
    rows_of = features.split_rows({"split": word})
    if not rows_of.rows["split"].any():
        known = features.split_names
        what = "The bank has" if features.source is not None else "There are"
        remedy = "name one of these" if known else f"leave --split out, or {features.split_remedy}"
        raise Refused(f"split {word!r}", f"{what} {', '.join(known) or 'no splits'}", remedy)
    return rows_of


def _per_patient(
    correct: NDArray[np.int64], queries: NDArray[np.int64], units: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Count correct answers and queries of each patient that was queried, float64 [2, G]."""
    sums = np.array([np.bincount(units, weights=counts) for counts in (correct, queries)], np.float64)
    return sums[:, sums[1] > 0]


def _check_memory(options: Options, compute: Compute, models: int) -> None:
    """Refuse more accuracies than memory holds: each model's are copied up to twice later."""
    needed = options.episodes * models * 8 * 4
    compute.check_memory(needed, f"{options.episodes:,} episodes of {models} models", "lower --episodes")


# On arrays


def fewshot(
    features: Any,
    labels: Any,
    protocol: Protocol | None = None,
    *,
    groups: Any = None,
    data_set: str = "",
    ok: NDArray[np.bool_] | None = None,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    bootstrap: int = 0,
) -> FewShotResult:
    """Run a protocol on features, without a bank.

    Args:
        features: [N, d], any float type; rows with NaN or infinity are masked. A torch tensor stays on its
            device.
        labels: [N] whole numbers or texts (`engine.evals.common.labels`); those without one are masked.
        groups: [N] patients, as `labels`; a missing one is a patient of its own. Where they are given,
            patients are kept apart unless the protocol says otherwise.
        data_set: name or digest that, with the protocol, decides which episodes are drawn; the model does
            not, so that models are compared on the same episodes.
        ok: bool [N], rows that have features, if known; else all numbers are looked at.
        backend: `array` (numpy, or torch on a device) or `faiss`, with equal results; `auto` is `array`.
        device: `cpu` or `cuda[:N]`; `auto` is where the features are, since bringing features of the CPU to
            a device takes longer than the evaluation.
        threads: on the CPU. Default: all usable cores.
        bootstrap: resamples of the interval over groups (over images without `groups`); 0 for none.

    Raises:
        Refused: fewer than N classes with K + Q usable images each, patients that cannot be kept apart, or
            arguments that do not fit together.
    """
    return compare(
        {"": features},
        labels,
        protocol,
        groups=groups,
        data_set=data_set,
        ok=ok,
        backend=backend,
        device=device,
        threads=threads,
        bootstrap=bootstrap,
    )[""]


def compare(
    features: Mapping[str, Any],
    labels: Any,
    protocol: Protocol | None = None,
    *,
    groups: Any = None,
    data_set: str = "",
    ok: NDArray[np.bool_] | None = None,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    bootstrap: int = 0,
    names: Sequence[str] | None = None,
) -> dict[str, FewShotResult]:
    """Run a protocol on several models' features of the same images, all on the same episodes.

    Rows that lack the embedding of one model are masked for all. Arguments otherwise as for `fewshot`;
    `names` are what integer labels stand for. `FewShotResult.minus` gives paired differences.
    """
    options = Options.of(protocol or Protocol(), bootstrap=bootstrap)
    clock = Clock()
    read = label_codes(labels if names is None else Labels(np.asarray(labels, np.int64), tuple(names)))
    several = [
        Features.from_arrays(array, read, groups=groups, ok=ok, data_set=data_set)
        for array in features.values()
    ]
    computes = [compute_for(model.array, device, threads, backend) for model in several]
    results = evaluate_together(several, options, computes, clock)
    return dict(zip(features, results, strict=True))


def compute_for(array: Any, device: str, threads: int | None, backend: str) -> Compute:
    """Choose where to compute; `auto` takes the device that holds the features.

    Bringing features of the CPU to a device takes longer than the evaluation; torch is imported only if a
    device is named.

    Args:
        array: features [N, d], numpy or torch; other arguments as for `fewshot`.

    Raises:
        Refused: an unknown name or backend, or FAISS where it is absent or cannot use the device.
    """
    where = device
    if device == "auto":
        where = str(array.device) if is_torch(array) else "cpu"
    elif device != "cpu":
        where = Runtime.resolve(device).device
    check_backend(backend)
    compute = Compute(where, threads or usable_cores(), backend)
    check_backend_here(compute)
    return compute
