"""k-nearest-neighbour classification from stored features: train to test, or leave-one-out.

Exact neighbours, ordered by (distance, row); votes uniform or weighted by exp(similarity / T) as in DINO
(Caron et al. 2021); a tie between classes goes to the smaller class code (their names sort by bytes).
"""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.errors import Refused
from engine.evals.common.advice import name_column
from engine.evals.common.arrays import finite
from engine.evals.common.groups import kept_apart, known_groups
from engine.evals.common.labels import Labels, label_codes
from engine.evals.common.one_line import counted, number
from engine.evals.common.splits import SplitRows, have, split_rows
from engine.kernels.episodes import own_groups
from engine.kernels.metrics import Classification
from engine.kernels.neighbours import Neighbours, nearest, temperature_weights, vote
from engine.kernels.vectors import Distance, Vectors
from engine.versions import versions
from stores import limits
from stores.bank.reader import Bank
from stores.bank.records import RunRecord, keep

Weights = Literal["uniform", "temperature"]

#: Tried when no k is asked for, as far as the base is large enough; the first is the headline (DINO's).
DEFAULT_K = (20, 1, 5, 10, 50, 100, 200)


#: Neighbours at most, whatever the base.
MAX_K = 100_000_000


@dataclass(frozen=True)
class KnnOptions:
    """How to classify.

    Attributes:
        k: numbers of neighbours; the first one's metrics are the headline. Empty takes `DEFAULT_K`.
        distance: `cosine` or `euclidean`.
        weights: `uniform` or `temperature`; None is temperature for cosine, uniform for euclidean.
        temperature: of the weights.
        group_disjoint: images of the query's group (patient) are no neighbours; None: so where groups are
            known.
        backend: `auto`, `array` or `faiss`; all give the same answers.
        device: `cpu` or `cuda:N`.
        threads: CPU threads of the float64 part; FAISS and numpy use what their own settings say.
    """

    k: tuple[int, ...] = ()
    distance: Distance = "cosine"
    weights: Weights | None = None
    temperature: float = 0.07
    group_disjoint: bool | None = None
    backend: str = "auto"
    device: str = "cpu"
    threads: int = 1

    def __post_init__(self) -> None:
        if self.distance not in ("cosine", "euclidean"):
            raise Refused(f"distance {self.distance!r}", "It is cosine or euclidean", "choose one")
        if self.weights not in (None, "uniform", "temperature"):
            raise Refused(f"weights {self.weights!r}", "They are uniform or temperature", "choose one")
        if self.weights == "temperature" and self.distance != "cosine":
            raise Refused(
                "temperature weights with euclidean distance",
                "They are exp(cosine similarity / T)",
                "use --distance cosine or --weights uniform",
            )
        limits.check_number("temperature", self.temperature, 1e-6, 1e6, "DINO's is 0.07")
        for k in self.k:
            limits.check_whole("k", k, 1, MAX_K)
        limits.check_whole("threads", self.threads, 1, limits.MAX_THREADS)

    @property
    def voting(self) -> Weights:
        return self.weights or ("temperature" if self.distance == "cosine" else "uniform")


@dataclass(frozen=True)
class KnnResult:
    """What came out.

    Attributes:
        by_k: metrics of each k, in the order asked; the first is the headline.
        neighbours: of each test row, as positions in `train_rows`.
        test_rows, train_rows: intp, rows of the features that were classified, and that voted.
        predicted: int64 [tests, len(by_k)], class codes.
        masked: rows of these parts left out, by reason: `failed`, `unlabelled`; where there are any,
            `only_own_patient`, test rows whose patient has all images that could vote.
        classes: how many classes occur.
        unseen: classes of test rows that no train row has.
        names: of the class codes; None where labels are numbers, which stand for themselves.
        group_disjoint: whether a patient's images had no vote for one another.
        notes: what a reader must know, one sentence each.
    """

    by_k: dict[int, Classification]
    neighbours: Neighbours
    test_rows: NDArray[np.intp]
    train_rows: NDArray[np.intp]
    predicted: NDArray[np.int64]
    masked: dict[str, int]
    classes: int
    unseen: int
    names: tuple[str, ...] | None = None
    group_disjoint: bool = False
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        k, test = next(iter(self.by_k.items()))
        return (
            f"KnnResult(accuracy {number(test.accuracy)}, per class "
            f"{number(test.mean_per_class_accuracy)}, AUROC {number(test.auroc)} at k = {k}; "
            f"{counted(len(self.test_rows), 'image')} tested, {len(self.train_rows):,} voting, "
            f"{self.classes:,} classes)"
        )

    def to_dict(self) -> dict[str, Any]:
        """`{k, test, by_k, best, images, ...}`; `best` is chosen on the test rows themselves."""
        headline = next(iter(self.by_k))
        best = max(self.by_k, key=lambda k: (self.by_k[k].accuracy, -k))
        return {
            "k": headline,
            "test": self.by_k[headline].to_dict(),
            "by_k": [{"k": k, **found.to_dict()} for k, found in self.by_k.items()],
            "best": {"k": best, "accuracy": self.by_k[best].accuracy, "chosen_on": "test"},
            "train_images": len(self.train_rows),
            "test_images": len(self.test_rows),
            "classes": self.classes,
            "unseen_classes": self.unseen,
            "masked": self.masked,
            "backend": self.neighbours.backend,
            "searched_again": self.neighbours.undecided,
            "group_disjoint": self.group_disjoint,
            "notes": list(self.notes),
        }


def knn(
    features: NDArray[Any],
    labels: Any,
    options: KnnOptions | None = None,
    *,
    train: ArrayLike | None = None,
    test: ArrayLike | None = None,
    groups: Any = None,
    ok: ArrayLike | None = None,
) -> KnnResult:
    """Classify test rows by their nearest train rows.

    Args:
        features: [N, d], any float type; rows with a number that is not finite are masked.
        labels: [N] whole numbers or texts (`engine.evals.common.labels`); rows without a label are masked.
        train, test: bool [N] each. Neither: every row is classified by all others (leave-one-out).
        groups: [N] patients, as `labels`; a missing one is a patient of its own. Where they are given, a
            patient's images have no vote for one another, unless the options say so.
        ok: bool [N], rows that have features, where that is known; None looks at all numbers.

    Raises:
        Refused: no usable row in a part, one class only, k larger than what can vote, no groups.
    """
    options = options or KnnOptions()
    read = label_codes(labels)
    codes = read.codes
    parts = _Parts.of(codes, train, test, finite(features) if ok is None else np.asarray(ok, bool))
    group = known_groups(groups, len(codes), np.concatenate([parts.test, parts.train]))
    apart, note = kept_apart(options.group_disjoint, group is not None, what="neighbours of each other")
    group = group if apart else None
    parts = parts if group is None else parts.without_own(group)
    keys = _keys(parts, group)
    ks = _allowed_k(options.k, len(parts.train), keys)
    # Rows and distances, what they become as classes and weights, and a copy while they are sorted.
    needed = len(parts.test) * max(ks) * 8 * 6
    limits.check_memory(needed, f"{max(ks):,} neighbours of {len(parts.test):,} images", "lower --k")
    base = Vectors(features, parts.train)
    queries = base if parts.leave_one_out else Vectors(features, parts.test)
    found = nearest(
        queries,
        base,
        max(ks),
        distance=options.distance,
        keys=keys,
        backend=options.backend,
        device=options.device,
        threads=options.threads,
    )
    names, both = np.unique(np.concatenate([codes[parts.train], codes[parts.test]]), return_inverse=True)
    voters, truth = both[: len(parts.train)], both[len(parts.train) :]
    weights = np.where(found.rows >= 0, 1.0, 0.0)
    if options.voting == "temperature":
        weights = temperature_weights(found.distances, options.temperature)
    shares = vote(np.where(found.rows >= 0, voters[found.rows], -1), weights, len(names), ks)
    return KnnResult(
        by_k={k: Classification.of(truth, shares[k]) for k in ks},
        neighbours=found,
        test_rows=parts.test,
        train_rows=parts.train,
        predicted=np.stack([names[shares[k].argmax(axis=1)] for k in ks], axis=1),
        masked=parts.masked,
        classes=len(names),
        unseen=len(np.setdiff1d(truth, voters)),
        names=read.names,
        group_disjoint=apart,
        notes=(note,) if note else (),
    )


@dataclass(frozen=True)
class _Parts:
    train: NDArray[np.intp]
    test: NDArray[np.intp]
    masked: dict[str, int]
    leave_one_out: bool

    @classmethod
    def of(
        cls,
        codes: NDArray[np.int64],
        train: ArrayLike | None,
        test: ArrayLike | None,
        finite: NDArray[np.bool_],
    ) -> "_Parts":
        alone = train is None and test is None
        if not alone and (train is None or test is None):
            raise Refused("One part without the other", "Train and test go together", "give both, or none")
        every = np.ones(len(codes), bool)
        asked = {
            "train": every if train is None else np.asarray(train, bool),
            "test": every if test is None else np.asarray(test, bool),
        }
        if not alone and (asked["train"] & asked["test"]).any():
            raise Refused(
                f"{int((asked['train'] & asked['test']).sum())} rows in both parts",
                "No image is trained on and tested",
                "name two different splits, or use --leave-one-out",
            )
        usable = finite & (codes >= 0)
        either = asked["train"] | asked["test"]
        masked = {
            "failed": int((either & ~finite).sum()),
            "unlabelled": int((either & finite & (codes < 0)).sum()),
        }
        rows = {name: np.flatnonzero(part & usable) for name, part in asked.items()}
        for name, part in asked.items():
            if not len(rows[name]):
                raise Refused(
                    f"No usable {'row' if alone else name + ' row'} among {int(part.sum())} "
                    f"({int((part & ~finite).sum())} failed, "
                    f"{int((part & finite & (codes < 0)).sum())} without a label)",
                    "Images with an embedding and a label are needed",
                    "check the split and label columns (`embank manifest check`) and the failures "
                    "(`embank bank show --failures`)",
                )
        classes = np.unique(codes[rows["train"]])
        if len(classes) < 2:
            raise Refused(
                f"{len(classes)} class among the {len(rows['train'])} images that vote",
                "Classification needs at least two",
                "add images of another class, or choose another split",
            )
        return cls(rows["train"], rows["test"], masked, alone)

    def without_own(self, groups: NDArray[np.int64]) -> "_Parts":
        """Mask the test rows of a patient who has all images that could vote."""
        voting = np.unique(groups[self.train])
        if len(voting) > 1 or voting[0] < 0:
            return self
        alone = groups[self.test] == voting[0]
        if alone.all():
            raise Refused(
                f"All {len(self.train)} images that vote and all {len(self.test)} to be classified are of "
                "one group (patient)",
                "A patient's images have no vote for one another",
                "add images of other groups, or let them vote with --no-group-disjoint",
            )
        if not alone.any():
            return self
        masked = {**self.masked, "only_own_patient": int(alone.sum())}
        return replace(self, test=self.test[~alone], masked=masked)


def _keys(
    parts: _Parts, groups: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """What queries must not share with their neighbours: the group if given, else the row."""
    if groups is None:
        return (parts.test, parts.train) if parts.leave_one_out else None
    key = own_groups(groups)
    return key[parts.test], key[parts.train]


def _allowed_k(
    asked: tuple[int, ...], base: int, keys: tuple[NDArray[np.int64], NDArray[np.int64]] | None
) -> tuple[int, ...]:
    """The ks to compute; refused if one is larger than what some query may choose from."""
    taken = 0
    if keys is not None:
        values, counts = np.unique(keys[1], return_counts=True)
        taken = int(counts[np.isin(values, keys[0])].max(initial=0))
    room = base - taken
    ks = tuple(dict.fromkeys(asked or (k for k in DEFAULT_K if k <= room)))
    if not ks or max(ks) > room:
        less = f" less {taken} of a query's own image or group" if taken else ""
        vote = (
            ", or let a patient's images vote for one another with --no-group-disjoint" if taken > 1 else ""
        )
        raise Refused(
            f"k = {max(ks, default=1)} with {base} images to choose from{less}",
            f"k is at most {room} here",
            f"lower --k, or add images to the train part{vote}",
        )
    return ks


def knn_from_bank(
    bank: Path | str,
    model: str,
    options: KnnOptions | None = None,
    *,
    train_split: str = "train",
    test_split: str = "test",
    leave_one_out: bool = False,
) -> dict[str, Any]:
    """k-NN on a model's sealed features; keeps a RunRecord.

    Args:
        model: slug or feature name.
        train_split, test_split: values of the split column.
        leave_one_out: ignore the splits; every image is classified by all others.

    Returns:
        `{model, test: {accuracy, mean_per_class_accuracy, auroc}, by_k, ..., seconds}`, fractions.
    """
    options = options or KnnOptions()
    start = time.perf_counter()
    store = Bank.open(bank)
    features = store.features(model)
    chosen = SplitRows({}, {}, ()) if leave_one_out else _splits(store, train_split, test_split)
    parts: dict[str, Any] = {**chosen.rows, "groups": store.column("group")[0], "ok": features.ok}
    codes, names = store.column("label")
    result = knn(features.array, Labels(codes.astype(np.int64), tuple(names)), options, **parts)
    seconds = round(time.perf_counter() - start, 4)
    asked = {"train_split": train_split, "test_split": test_split} if not leave_one_out else {}
    settings = {**asdict(options), "weights": options.voting, "leave_one_out": leave_one_out, **asked}
    settings["group_disjoint"] = result.group_disjoint
    found = {**result.to_dict(), "other_splits": chosen.others, "split_notes": list(chosen.notes)}
    record = RunRecord.now(
        kind="knn",
        asked={"model": model, **settings},
        used={
            "feature": features.info.name,
            "manifest_digest": store.manifest_digest,
            "device": options.device,
            "backend": found["backend"],
        },
        metrics=found,
        seconds={"total": seconds},
        versions=versions(),
        failures=result.masked,
    )
    shown = ("distance", "weights", "temperature", "group_disjoint", "leave_one_out", *asked)
    report = {
        "model": features.title,
        "feature": features.name,
        **{name: settings[name] for name in shown},
        **found,
        "seconds": seconds,
    }
    keep(record, store.path, report)
    return report


def _splits(store: Bank, train: str, test: str) -> SplitRows:
    """Rows of the two splits."""
    codes, vocabulary = store.column("split")
    if not vocabulary:
        raise Refused(
            f"The manifest of {store.path} names no splits",
            "Train to test needs a split column",
            f"use --leave-one-out, or {name_column('split')}",
        )
    found = split_rows(codes, vocabulary, {"train": train, "test": test})
    for part, name in (("train", train), ("test", test)):
        if not found.rows[part].any():
            raise Refused(
                f"split {name!r}",
                f"The bank has {have(codes, vocabulary)} and {int((codes < 0).sum())} images without a split",
                "name one of these with --train-split and --test-split",
            )
    return found
