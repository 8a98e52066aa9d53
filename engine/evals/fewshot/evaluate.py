"""Prototype few-shot classification from stored features.

N-way K-shot episodes as in equation 1 of Anton et al., J. Imaging 2022, 8, 320 (doi 10.3390/jimaging8120320),
after Snell et al. 2017: a class's prototype is the mean of its K support features, a query takes the class
of the nearest prototype in squared Euclidean distance.

    from engine.evals.fewshot.evaluate import Protocol, fewshot
    found = fewshot(features, labels, Protocol(n_way=2, n_shot=5))
    found.accuracy, found.ci95, found.per_episode
"""

import hashlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.common.groups import NO_GROUP, kept_apart, known_groups
from engine.evals.common.labels import Labels, label_codes
from engine.evals.common.one_line import counted, within
from engine.kernels import faiss_library, intervals, prototypes
from engine.kernels.cluster_robust import Clustered, ratio
from engine.kernels.episodes import Episodes, Identity, Rows, Sampler, own_groups, smallest_keys
from engine.kernels.float16 import finite_rows
from engine.kernels.intervals import Bootstrap
from engine.runtime import float32_products, usable_cores
from stores import limits

MODES = ("default", "as-published")
BACKENDS = ("auto", "array", "faiss")

#: The study's loop over the shuffled images of a large set ends after index 10,000.
PUBLISHED_POOL = 10_001
#: What `as-published` cannot take from stored features.
NOT_REPRODUCED = (
    "preprocessing: it is the bank's (the study squashed its small sets to 257 x 257)",
    "the very episodes: they came from the study's torch version, another for each architecture",
    "the pool's limit applies to every set of more than 10,001 images, CIFAR-10 too",
)

#: Drawn rows that a block of episodes may have; and threads that still help.
_BLOCK_ROWS, _MOST_THREADS = 4_000_000, 16
#: Classes an episode where nothing is said, or all there are if these are fewer.
USUAL_WAYS = 5
#: Largest values of a protocol: no study has had a thousandth of them.
MOST = {"n_way": 1_000_000, "n_shot": 10_000_000, "n_query": 10_000_000, "episodes": 10_000_000}
#: Most classes for which a confusion matrix is kept.
_MOST_CONFUSED = 2000


@dataclass(frozen=True)
class Protocol:
    """An N-way K-shot protocol.

    Attributes:
        n_way: classes an episode; None for 5, or for all that are large enough if these are fewer.
        n_shot, n_query: support and query images a class.
        episodes: number of them, at least 2. seed: of the drawing.
        distance: `sqeuclidean`, `cosine` or `centred` (`engine.kernels.prototypes`).
        mode: `default`; `as-published` has the study's pool of 10,001 images and its interval, 1.96 times the
            population sd over sqrt(episodes).
        group_disjoint: no group (patient) in both support and query of an episode; None: so where groups are
            known and the mode is `default`.
        cap: images a class that may be drawn, chosen by the seed; None for all.

    Raises:
        Refused: a value out of range, or an option that the study did not have in `as-published`.
    """

    n_way: int | None = None
    n_shot: int = 20
    n_query: int = 15
    episodes: int = 600
    seed: int = 0
    distance: str = "sqeuclidean"
    mode: str = "default"
    group_disjoint: bool | None = None
    cap: int | None = None

    def __post_init__(self) -> None:
        limits.check_seed(self.seed)
        for name, least in {"n_way": 2, "n_shot": 1, "n_query": 1, "episodes": 2}.items():
            if name != "n_way" or self.n_way is not None:
                limits.check_whole(name, getattr(self, name), least, MOST[name])
        for name, known in (("distance", prototypes.DISTANCES), ("mode", MODES)):
            if getattr(self, name) not in known:
                raise Refused(
                    f"{name} {getattr(self, name)!r}", f"It is one of {', '.join(known)}", "choose one"
                )
        if self.cap is not None:
            limits.check_whole("cap", self.cap, 1, MOST["n_shot"])
        if self.cap is not None and self.cap < self.n_shot + self.n_query:
            raise Refused(
                f"cap = {self.cap}",
                f"A class needs n_shot + n_query = {self.n_shot + self.n_query} images",
                "raise --cap, or lower --n-shot or --n-query",
            )
        if self.published and (self.group_disjoint or self.cap or self.distance != "sqeuclidean"):
            raise Refused(
                "as-published with a cap, another distance or disjoint patients",
                "The study drew from all images, patients shared, by squared Euclidean distance",
                "leave these options out, or use --mode default",
            )

    @property
    def published(self) -> bool:
        return self.mode == "as-published"

    @property
    def ways(self) -> int:
        """Classes an episode: `n_way`, which an evaluation has made a number."""
        return USUAL_WAYS if self.n_way is None else self.n_way

    def identity(self, data_set: str) -> Identity:
        """What decides the episodes; the model is no part of it."""
        return Identity(self.seed, data_set, self.ways, self.n_shot, self.n_query)


@dataclass(frozen=True)
class Difference:
    """Difference of two accuracies on the same episodes.

    Attributes:
        mean: a fraction; ci95: half width of its 95 % interval over episodes.
        patients: its interval over the patients asked.
    """

    mean: float
    ci95: float
    patients: Clustered

    def to_dict(self) -> dict[str, Any]:
        """`{difference, ci95, low, high, patients}`; `low` and `high` are over episodes."""
        return {
            "difference": self.mean,
            "ci95": self.ci95,
            "low": self.mean - self.ci95,
            "high": self.mean + self.ci95,
            "patients": self.patients.to_dict(),
        }


@dataclass(frozen=True)
class FewShotResult:
    """What a protocol found with one model.

    Attributes:
        protocol: as it was run, its `n_way` a number and `group_disjoint` true or false.
        accuracy: mean of the episodes' accuracies, a fraction; ci95: half width of its 95 % interval over
            episodes.
        per_episode: float64 [episodes].
        used: images that could be drawn. masked: rows without label or embedding.
        classes: label of each row and column of `confusion`; only classes large enough are drawn.
        confusion: int64 [classes, classes], queries by true (row) and predicted class; None beyond 2,000.
        episodes_digest: SHA-256 of the drawn rows: results with equal digests are paired.
        per_patient: float64 [2, G], right answers and queries of each patient; None where no usable image has
            a group.
        notes: what a reader must know, one sentence each.
        bootstrap: interval over patients (groups), if asked for.
        seconds: by stage.
    """

    protocol: Protocol
    accuracy: float
    ci95: float
    per_episode: NDArray[np.float64]
    used: int
    masked: int
    classes: tuple[Any, ...]
    confusion: NDArray[np.int64] | None
    episodes_digest: str
    per_patient: NDArray[np.float64] | None = None
    notes: tuple[str, ...] = ()
    bootstrap: Bootstrap | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        low, high = self.accuracy - self.ci95, self.accuracy + self.ci95
        asked = f"{self.protocol.ways}-way {self.protocol.n_shot}-shot, {self.protocol.distance}"
        return (
            f"FewShotResult(accuracy {within(self.accuracy, low, high)}, 95 % over "
            f"{counted(len(self.per_episode), 'episode')}; {asked}; {counted(self.used, 'image')})"
        )

    @property
    def patients(self) -> Clustered:
        """95 % interval of the accuracy over the patients asked (`engine.kernels.cluster_robust.ratio`)."""
        return Clustered.undefined(NO_GROUP) if self.per_patient is None else ratio(*self.per_patient)

    def minus(self, other: "FewShotResult") -> Difference:
        """Difference of the accuracies on the same episodes, with 95 % intervals over episodes and patients.

        Raises:
            Refused: the two saw different episodes.
        """
        if self.episodes_digest != other.episodes_digest:
            raise Refused(
                "Two results from different episodes",
                "A paired difference needs the same episodes",
                "evaluate both models in one call",
            )
        over = intervals.paired(self.per_episode, other.per_episode)
        patients = Clustered.undefined(NO_GROUP)
        if self.per_patient is not None and other.per_patient is not None:
            patients = ratio(self.per_patient[0] - other.per_patient[0], self.per_patient[1])
        return Difference(over.mean, over.ci95, patients)

    def to_dict(self) -> dict[str, Any]:
        """The protocol, and what a record keeps of the result."""
        found: dict[str, Any] = {
            **self.protocol.__dict__,
            "accuracy": self.accuracy,
            "ci95": self.ci95,
            "images": self.used,
            "masked": self.masked,
            "episodes_digest": self.episodes_digest,
            "patients": self.patients.to_dict(),
            "notes": list(self.notes),
        }
        if self.bootstrap is not None:
            found["bootstrap"] = self.bootstrap.to_dict()
        if self.protocol.published:
            found["not_reproduced"] = list(NOT_REPRODUCED)
        return found


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
        backend: `array` (numpy, or torch on a device) or `faiss`, which answers alike; `auto` is `array`.
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

    Rows that one model has no embedding of are masked for all. Arguments otherwise as for `fewshot`;
    `names` are what integer labels stand for. `FewShotResult.minus` gives paired differences.
    """
    protocol = protocol or Protocol()
    limits.check_resamples(bootstrap)
    _check_memory(protocol, len(features))
    clock = _Clock()
    read = label_codes(labels if names is None else Labels(np.asarray(labels, np.int64), tuple(names)))
    codes, names = read.codes, read.names
    have = _usable_rows(features, len(codes), ok)
    clock.lap("labels")
    usable = np.flatnonzero(have & (codes >= 0))
    patients = known_groups(groups, len(codes), usable)
    protocol, notes = _resolved(protocol, patients, codes[usable])
    pools = _pools(codes, usable, protocol, data_set)
    large = {c: rows for c, rows in pools.items() if len(rows) >= protocol.n_shot + protocol.n_query}
    if len(large) < protocol.ways:
        raise _too_few(pools, names, len(large), protocol, len(codes), codes, have)
    by_row = bool(bootstrap) or patients is not None
    run = _Run(protocol, list(large.values()), data_set, patients, len(codes), by_row)
    clock.lap("pools")
    predictors = {
        name: _predictor(array, protocol, backend, device, threads) for name, array in features.items()
    }
    clock.lap("device")
    run.go(predictors, clock)
    classes = tuple(names[c] if names is not None else c for c in large)
    units = own_groups(np.full(len(codes), -1) if patients is None else patients) if by_row else None
    used = sum(len(rows) for rows in pools.values())
    found = {}
    for name in features:
        tally = run.tallies[name]
        interval = intervals.over_episodes(tally.accuracies, population=protocol.published)
        boot = None
        if units is not None and bootstrap:
            stream = protocol.identity(data_set).stream("bootstrap")
            boot = intervals.over_groups(tally.correct, run.asked, units, bootstrap, stream)
        clock.lap("intervals")
        found[name] = FewShotResult(
            protocol, interval.mean, interval.ci95, tally.accuracies, used, len(codes) - len(usable),
            classes, tally.confusion, run.digest.hexdigest(),
            None if patients is None else _per_patient(tally.correct, run.asked, units),
            notes, boot, clock.of(name),
        )  # fmt: skip
    return found


def _resolved(
    protocol: Protocol, groups: NDArray[np.int64] | None, codes: NDArray[np.integer[Any]]
) -> tuple[Protocol, tuple[str, ...]]:
    """The protocol with a number of classes and with patients apart or not, and what is to be said of it.

    Args:
        codes: labels of the usable rows.
    """
    apart, note = kept_apart(
        protocol.group_disjoint,
        groups is not None,
        published=protocol.published,
        what="in both support and query of an episode",
    )
    notes, ways = [note] if note else [], protocol.n_way
    if ways is None:
        need, sizes = protocol.n_shot + protocol.n_query, np.unique(codes, return_counts=True)[1]
        large = int((sizes >= need).sum())
        ways = max(2, min(USUAL_WAYS, large))
        if ways < USUAL_WAYS and large >= 2:
            small = "" if large == len(sizes) else f", as {len(sizes) - large} of {len(sizes)} are too small"
            notes.append(
                f"n-way is {ways} and not {USUAL_WAYS}: {large} classes have {need} usable images{small}"
            )
    return replace(protocol, n_way=ways, group_disjoint=apart), tuple(notes)


def _per_patient(
    correct: NDArray[np.int64], queries: NDArray[np.int64], units: NDArray[np.int64] | None
) -> NDArray[np.float64]:
    """Right answers and queries of each patient who was asked, float64 [2, G]."""
    rows = np.flatnonzero(queries)
    assert units is not None
    _, codes = np.unique(units[rows], return_inverse=True)
    return np.stack([np.bincount(codes, weights=counts[rows]) for counts in (correct, queries)])


def _check_memory(protocol: Protocol, models: int) -> None:
    """Each model's accuracies are kept, and copied once or twice for intervals and the record (as text)."""
    needed = protocol.episodes * models * 8 * 4
    limits.check_memory(needed, f"{protocol.episodes:,} episodes of {models} models", "lower --episodes")


class _Clock:
    """Seconds of each stage, those of one model apart."""

    def __init__(self) -> None:
        self._last, self._shared = time.perf_counter(), dict[str, float]()
        self._own: dict[str, float] = {}

    def lap(self, stage: str, model: str | None = None) -> None:
        now = time.perf_counter()
        spent, into = now - self._last, self._shared if model is None else self._own
        key = stage if model is None else model
        into[key] = into.get(key, 0.0) + spent
        self._last = now

    def of(self, model: str) -> dict[str, float]:
        """Stages of all models together, and the kernel's of this one."""
        stages = {**self._shared, "kernel": self._own.get(model, 0.0)}
        return {name: round(seconds, 6) for name, seconds in stages.items()}


class _Tally:
    """Counts of one model over all episodes."""

    def __init__(self, episodes: int, classes: int, rows: int) -> None:
        self.accuracies = np.empty(episodes, np.float64)
        self.confusion = np.zeros((classes, classes), np.int64) if classes <= _MOST_CONFUSED else None
        self.correct = np.zeros(rows, np.int64)

    def add(self, start: int, drawn: Episodes, predicted: NDArray[np.int16]) -> None:
        right = predicted == np.arange(predicted.shape[1])[:, None]
        self.accuracies[start : start + len(drawn)] = right.mean(axis=(1, 2))
        if self.confusion is not None:
            chosen = np.take_along_axis(drawn.classes[:, :, None], predicted.astype(np.int64), axis=1)
            cells = drawn.classes[:, :, None] * len(self.confusion) + chosen
            self.confusion += np.bincount(cells.ravel(), minlength=self.confusion.size).reshape(
                self.confusion.shape
            )
        if len(self.correct):
            self.correct += np.bincount(drawn.query[right], minlength=len(self.correct))


class _Run:
    """Draws block after block of episodes and lets each model predict them."""

    def __init__(
        self, protocol: Protocol, pools: Sequence[Rows], data_set: str, groups: NDArray[np.int64] | None,
        rows: int, by_row: bool,
    ) -> None:  # fmt: skip
        disjoint = groups if protocol.group_disjoint else None
        self._sampler = Sampler(pools, protocol.identity(data_set), disjoint)
        self._protocol, self._classes, self._rows = protocol, len(pools), rows if by_row else 0
        self.digest = hashlib.sha256()
        self.asked = np.zeros(self._rows, np.int64)
        self.tallies: dict[str, _Tally] = {}

    def go(self, predictors: Mapping[str, Callable[[Episodes], NDArray[np.int16]]], clock: _Clock) -> None:
        p = self._protocol
        self.tallies = {name: _Tally(p.episodes, self._classes, self._rows) for name in predictors}
        step = max(1, _BLOCK_ROWS // (p.ways * (p.n_shot + p.n_query)))
        for start in range(0, p.episodes, step):
            drawn = self._sampler.draw(min(step, p.episodes - start))
            self.digest.update(drawn.digest_bytes)
            if self._rows:
                self.asked += np.bincount(drawn.query.ravel(), minlength=self._rows)
            clock.lap("sampling")
            for name, predict in predictors.items():
                predicted = predict(drawn)
                clock.lap("kernel", name)
                self.tallies[name].add(start, drawn, predicted)
                clock.lap("counting")


def _is_torch(array: Any) -> bool:
    torch = sys.modules.get("torch")  # whoever has a tensor has imported it
    return torch is not None and isinstance(array, torch.Tensor)


def _usable_rows(features: Mapping[str, Any], rows: int, ok: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """bool [N]: rows of which every model has finite features."""
    found = np.ones(rows, np.bool_) if ok is None else np.asarray(ok, np.bool_)
    for array in features.values():
        if len(array.shape) != 2 or len(array) != rows or len(found) != rows:
            raise Refused(
                f"features of shape {tuple(array.shape)} for {rows} labels",
                "They are a matrix with a row for each label",
                "give arrays that belong together",
            )
        if ok is None:
            finite = array.isfinite().all(dim=1).cpu().numpy() if _is_torch(array) else finite_rows(array)
            found = found & finite
    return found


def _pools(
    codes: NDArray[np.integer[Any]], usable: Rows, protocol: Protocol, data_set: str
) -> dict[int, Rows]:
    """Rows of each class that may be drawn, sorted by row; classes sorted by code."""
    identity = protocol.identity(data_set)
    if protocol.published:
        usable = smallest_keys(identity.stream("pool"), usable, len(codes), PUBLISHED_POOL)
    here = codes[usable]
    order = np.argsort(here, kind="stable")
    classes, starts = np.unique(here[order], return_index=True)
    pools = (
        {int(c): usable[part] for c, part in zip(classes, np.split(order, starts[1:]), strict=True)}
        if len(here)
        else {}
    )
    if protocol.cap is not None:
        pools = {
            c: smallest_keys(identity.stream("cap"), rows, len(codes), protocol.cap)
            for c, rows in pools.items()
        }
    return pools


def _too_few(
    pools: Mapping[int, Rows], names: Sequence[Any] | None, large: int, protocol: Protocol, rows: int,
    codes: NDArray[np.integer[Any]], have: NDArray[np.bool_],
) -> Refused:  # fmt: skip
    need = protocol.n_shot + protocol.n_query
    largest = sorted(pools, key=lambda c: -len(pools[c]))[:10]
    sizes = ", ".join(f"{c if names is None else names[c]} {len(pools[c]):,}" for c in largest)
    return Refused(
        f"{large} of {len(pools)} classes have {need} usable images (largest: {sizes or 'none'}; "
        f"of {rows:,} rows, {int((~have).sum()):,} have no embedding, {int((codes < 0).sum()):,} no label)",
        f"{protocol.ways} classes with n_shot + n_query = {need} images each are needed",
        "lower --n-way, --n-shot or --n-query, or add images",
    )


def _predictor(
    array: Any, protocol: Protocol, backend: str, device: str, threads: int | None
) -> Callable[[Episodes], NDArray[np.int16]]:
    """The kernel that predicts episodes from these features, which are brought to the device."""
    distance: Any = protocol.distance  # one of `DISTANCES`, as the protocol saw to
    where = _device(array, device)
    if backend not in BACKENDS:
        raise Refused(f"backend {backend!r}", f"It is one of {', '.join(BACKENDS)}", "choose one")
    if backend == "faiss":
        if where != "cpu":
            raise Refused(
                f"backend faiss on {where}",
                "It searches the few prototypes of an episode on the CPU",
                "use --backend array on a device, or --device cpu",
            )
        faiss_library.library("backend 'faiss'", "use --backend array, which gives the same answers")
        return partial(_by_faiss, prototypes.as_float(_on_cpu(array)), distance)
    if where == "cpu":
        workers = threads or min(usable_cores(), _MOST_THREADS)
        return partial(_by_array, prototypes.as_float(_on_cpu(array)), distance, workers)
    return partial(_by_device, _on_device(array, where), distance)


def _by_array(
    array: NDArray[Any], distance: prototypes.Distance, threads: int, drawn: Episodes
) -> NDArray[np.int16]:
    return prototypes.predict(array, drawn.support, drawn.query, distance, threads)


def _by_device(array: Any, distance: prototypes.Distance, drawn: Episodes) -> NDArray[np.int16]:
    with float32_products():
        return prototypes.predict_on_device(array, drawn.support, drawn.query, distance)


def _by_faiss(array: NDArray[Any], distance: prototypes.Distance, drawn: Episodes) -> NDArray[np.int16]:
    return prototypes.predict_by_faiss(array, drawn.support, drawn.query, distance)


def _device(array: Any, device: str) -> str:
    """`cpu` or `cuda:N`. torch is imported only if a device is named."""
    if device == "auto":
        return str(array.device) if _is_torch(array) else "cpu"
    if device == "cpu":
        return device
    from engine.runtime import Runtime

    return Runtime.resolve(device).device


def _on_cpu(array: Any) -> NDArray[Any]:
    found: NDArray[Any] = array.cpu().numpy() if _is_torch(array) else array
    return found


def _on_device(array: Any, device: str) -> Any:
    """A tensor on the device."""
    import torch

    return array.to(device) if _is_torch(array) else torch.tensor(array, device=device)
