"""k-nearest-neighbour classification from stored features: train to test, or leave-one-out.

Exact neighbours, ordered by (distance, row); votes uniform or weighted by exp(similarity / T) as in DINO
(Caron et al. 2021); a tie between classes goes to the smaller class code (their names sort by bytes).
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.errors import Refused
from engine.evals.common.compute import Compute
from engine.evals.common.features import Features
from engine.evals.common.groups import kept_apart, known_groups
from engine.evals.common.labels import label_codes
from engine.evals.common.record import Outcome, Part, Used, keep_record
from engine.evals.common.splits import SplitRows, have
from engine.evals.common.validity_checks import class_issues
from engine.evals.neighbours.options import ClassifyOptions, KnnOptions, Voting
from engine.evals.neighbours.parts import Parts, allowed_k, keys_of
from engine.evals.neighbours.result import KnnResult, Scores
from engine.kernels.metrics import Classification
from engine.kernels.neighbours import nearest, temperature_weights, vote
from engine.kernels.vectors import Vectors
from stores.json_types import JsonObject

__all__ = ["KnnOptions", "KnnResult", "Options", "Result", "evaluate", "knn", "knn_from_bank"]

#: Called with (what, done, to do).
Progress = Callable[[str, int, int], None]
Options = ClassifyOptions
Result = KnnResult


def evaluate(features: Features, options: ClassifyOptions, compute: Compute) -> KnnResult:
    """Classify test images by their nearest train images, or each image by all others.

    Raises:
        Refused: no such split, no usable row in a part, one class only, k larger than what can vote, or no
            groups where they are to be kept apart.
    """
    splits = SplitRows({}, {}, ()) if options.leave_one_out else _splits(features, options)
    result = _classify(features, options, compute, splits.rows)
    return replace(result, others=splits.others, split_notes=splits.notes)


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
    arrays = Features.from_arrays(features, labels, groups=groups, ok=ok)
    parts = {"train": train, "test": test}
    return _classify(arrays, options, _compute(options), {n: p for n, p in parts.items() if p is not None})


def _compute(options: KnnOptions) -> Compute:
    return Compute.resolve(options.device, options.threads, options.backend)


def _classify(
    features: Features, voting: Voting, compute: Compute, rows: Mapping[str, ArrayLike]
) -> KnnResult:
    """Classify test rows by train rows, both bool [N]; without them every row by all others."""
    read = label_codes(features.labels)
    codes = read.codes
    parts = Parts.of(codes, rows.get("train"), rows.get("test"), features.ok)
    group = known_groups(features.groups, len(codes), np.concatenate([parts.test, parts.train]))
    apart, issues = kept_apart(voting.group_disjoint, group is not None, what="neighbours of each other")
    group = group if apart else None
    parts = parts if group is None else parts.without_own(group)
    keys = keys_of(parts, group)
    ks = allowed_k(voting.k, len(parts.train), keys)
    # Indices and distances, the classes and weights made of them, and a copy for sorting.
    needed = len(parts.test) * max(ks) * 8 * 6
    compute.check_memory(needed, f"{max(ks):,} neighbours of {len(parts.test):,} images", "lower --k")
    matrix = features.matrix(compute.device, compute.memory)
    base = Vectors(matrix, parts.train)
    neighbours = nearest(
        base if parts.leave_one_out else Vectors(matrix, parts.test),
        base,
        max(ks),
        distance=voting.distance,
        keys=keys,
        backend=compute.backend,
        device=compute.device,
        threads=compute.threads,
    )
    names, both = np.unique(np.concatenate([codes[parts.train], codes[parts.test]]), return_inverse=True)
    voters, truth = both[: len(parts.train)], both[len(parts.train) :]
    weights = np.where(neighbours.rows >= 0, 1.0, 0.0)
    if voting.voting == "temperature":
        weights = temperature_weights(neighbours.distances, voting.temperature)
    shares = vote(np.where(neighbours.rows >= 0, voters[neighbours.rows], -1), weights, len(names), ks)
    return KnnResult(
        by_k={k: Classification.of(truth, shares[k]) for k in ks},
        neighbours=neighbours,
        test_rows=parts.test,
        train_rows=parts.train,
        predicted=np.stack([names[shares[k].argmax(axis=1)] for k in ks], axis=1),
        masked=parts.masked,
        classes=len(names),
        unseen=len(set(truth.tolist()) - set(voters.tolist())),
        names=read.names,
        group_disjoint=apart,
        validity=(*issues, *class_issues(_classes(codes, parts), read.names)),
        scores=Scores(shares[ks[0]], names, codes[parts.test]),
    )


def _classes(codes: NDArray[np.int64], parts: Parts) -> dict[str, NDArray[np.int64]]:
    """Return the classes of each part's images."""
    if parts.leave_one_out:
        return {"images": codes[parts.train]}
    return {"train": codes[parts.train], "test": codes[parts.test]}


def _splits(features: Features, options: ClassifyOptions) -> SplitRows:
    """Find the rows of the two splits."""
    words, known = options.splits, features.split_names
    if not known:
        where = "" if features.source is None else f"The manifest of {features.source.bank.path}"
        raise Refused(
            f"{where or features.title} names no splits",
            "Train to test needs a split column",
            f"use --leave-one-out, or {features.split_remedy}",
        )
    assert features.splits is not None
    codes = features.splits.codes
    split_rows = features.split_rows(words)
    for part, word in words.items():
        if not split_rows.rows[part].any():
            what = "The bank has" if features.source is not None else "There are"
            raise Refused(
                f"split {word!r}",
                f"{what} {have(codes, known)} and {int((codes < 0).sum())} images without a split",
                "name one of these with --train-split and --test-split",
            )
    return split_rows


def knn_from_bank(
    bank: Path | str,
    model: str,
    options: KnnOptions | None = None,
    *,
    train_split: str = "train",
    test_split: str = "test",
    leave_one_out: bool = False,
    controls: bool = False,
    progress: Progress | None = None,
) -> JsonObject:
    """Classify by nearest neighbours in a model's sealed features; keep a RunRecord.

    Args:
        model: slug or feature name.
        train_split, test_split: values of the split column.
        leave_one_out: ignore the splits; every image is classified by all others.
        controls: also evaluate the controls (`engine.evals.controls`).
        progress: of the controls, called with (what, done, to do).

    Returns:
        `{model, test: {accuracy, mean_per_class_accuracy, auroc}, by_k, ..., seconds}`, fractions.
    """
    options = options or KnnOptions()
    start = time.perf_counter()
    features = Features.from_bank(bank, model)
    wanted, compute = ClassifyOptions.of(options, train_split, test_split, leave_one_out), _compute(options)
    result = evaluate(features, wanted, compute)
    own = None
    if controls:
        # Imported here: a command without them starts sooner.
        from engine.evals.controls.evaluate import controls_of

        own = controls_of("knn", features, wanted, result, compute, progress=progress)
    seconds = round(time.perf_counter() - start, 4)
    splits: JsonObject = {f"{part}_split": word for part, word in wanted.splits.items()}
    settings: JsonObject = {
        **asdict(options),
        "k": list(options.k),
        "weights": options.voting,
        "leave_one_out": leave_one_out,
        **splits,
        "group_disjoint": result.group_disjoint,
    }
    metrics: JsonObject = {
        **result.to_dict(),
        "other_splits": dict(result.others),
        "split_notes": list(result.split_notes),
        **(own.to_dict() if own else {}),
    }
    shown = ("distance", "weights", "temperature", "group_disjoint", "leave_one_out", *splits)
    report: JsonObject = {
        "model": features.title,
        "feature": features.name,
        **{name: settings[name] for name in shown},
        **metrics,
        "seconds": seconds,
    }
    used = Used.of(features, compute, _used_rows(result, wanted, len(features)), backend=result.backend)
    outcome = Outcome(
        metrics,
        {"total": seconds},
        failures=dict(result.masked),
        predictions=result.predictions(),
        validity=(*result.validity, *(own.validity if own else ())),
        patients_apart=result.group_disjoint,
        caches=own.caches if own else (),
    )
    keep_record(report, "knn", features, {"model": model, **settings}, used, outcome)
    return report


def _used_rows(result: KnnResult, options: ClassifyOptions, total: int) -> dict[str, Part]:
    if options.leave_one_out:
        return {"images": Part.of(result.train_rows, total)}
    rows = {"train": result.train_rows, "test": result.test_rows}
    return {part: Part.of(rows[part], total, word) for part, word in options.splits.items()}
