"""The audit of a bank: near-duplicate images, and what leaks from one split into another."""

import time
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.kernels.near_duplicates import Pairs, Tally, identical, similar_pairs
from engine.kernels.vectors import Vectors
from engine.versions import versions
from stores import limits
from stores.bank.reader import Bank, FeatureSet
from stores.bank.records import RunRecord, keep
from stores.manifest.spellings import alike
from stores.table_files import write_table

#: Columns whose values a pair may share.
COLUMNS = ("label", "split", "group")

#: Pairs that are listed at most; all are counted.
MAX_PAIRS = 10_000_000

Column = tuple[NDArray[np.int32], list[str]]


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        pairs: the most similar ones, as rows of the bank.
        report: the JSON document.
        columns: name -> (codes, vocabulary) of `COLUMNS`.
    """

    pairs: Pairs
    report: dict[str, Any]
    columns: dict[str, Column]

    def value(self, column: str, row: int) -> str:
        """A row's text in a column; empty where missing."""
        codes, vocabulary = self.columns[column]
        return vocabulary[codes[row]] if codes[row] >= 0 else ""


def audit(
    bank: Path | str, model: str, *, threshold: float = 0.99, max_pairs: int = 10_000, device: str = "cpu"
) -> Audit:
    """Look for near-duplicates by a model's features, and for patients in several splits; keeps a RunRecord.

    Args:
        model: slug or feature name; the more it knows of such images, the more a high similarity means.
        threshold: least cosine similarity of a pair, in (0, 1].
        max_pairs: the most pairs listed; all are counted.
        device: `cpu` or `cuda:N`.

    Returns:
        `report`: `{model, threshold, images, masked, pairs, images_in_pairs, listed, across_splits,
        same_label, ..., identical, groups, seconds}`.

    Raises:
        Refused: a threshold outside (0, 1], or fewer than two images with an embedding.
    """
    start = time.perf_counter()
    _check(threshold, max_pairs)
    store = Bank.open(bank)
    features = store.features(model)
    rows = np.flatnonzero(features.ok)
    if len(rows) < 2:
        raise Refused(
            f"{len(rows)} of {len(features)} images have an embedding",
            "Pairs need two",
            "see `embank bank show --failures`",
        )
    columns = {name: store.column(name) for name in COLUMNS}
    vectors = Vectors(features.array, rows)
    tally = Tally({name: codes[rows] for name, (codes, _) in columns.items()}, len(rows))
    near = similar_pairs(vectors, threshold, limit=max_pairs, tally=tally, device=device)
    report: dict[str, Any] = {
        "model": features.title,
        "feature": features.name,
        "threshold": threshold,
        "images": len(rows),
        "masked": len(features) - len(rows),
        **_counts(tally),
        "listed": len(near),
        "identical": _identical(vectors, columns["split"][0][rows]),
        "groups": _groups_across_splits(columns["group"], columns["split"]),
    }
    report["seconds"] = round(time.perf_counter() - start, 4)
    _record(store, features, report, max_pairs, device)
    return Audit(Pairs(rows[near.first], rows[near.second], near.similarity), report, columns)


def _check(threshold: float, max_pairs: int) -> None:
    if not 0 < threshold <= 1:
        raise Refused(f"threshold {threshold}", "A cosine similarity above 0, at most 1", "0.99 is a start")
    limits.check_whole("max_pairs", max_pairs, 1, MAX_PAIRS, "10000 are the default")


def _counts(tally: Tally) -> dict[str, Any]:
    counts = tally.counts
    return {
        "pairs": tally.total,
        "images_in_pairs": int(tally.touched.sum()),
        "across_splits": counts["split"]["different"],
        "same_label": counts["label"]["same"],
        "different_label": counts["label"]["different"],
        "same_group": counts["group"]["same"],
        "different_group": counts["group"]["different"],
        "unknown": {name: counts[name]["unknown"] for name in COLUMNS},
    }


def _identical(vectors: Vectors, split: NDArray[np.int32]) -> dict[str, int]:
    """Images whose stored embeddings are equal byte for byte: most often the same file twice."""
    groups = identical(vectors)
    across = sum(len(np.unique(split[group][split[group] >= 0])) > 1 for group in groups)
    return {
        "groups": len(groups),
        "images": sum(len(group) for group in groups),
        "groups_across_splits": int(across),
    }


def _groups_across_splits(group: Column, split: Column) -> dict[str, Any]:
    """Groups (patients) with images in more than one split, by the manifest's columns alone."""
    (groups, names), (splits, vocabulary) = group, split
    known = (groups >= 0) & (splits >= 0)
    there = np.zeros((len(names), len(vocabulary)), bool)
    there[groups[known], splits[known]] = True
    straddling = there.sum(axis=1) > 1
    return {
        "total": len(names),
        "across_splits": int(straddling.sum()),
        "images_of_these": int(straddling[groups[groups >= 0]].sum()),
        "across_splits_by_spelling": sum(
            bool(there[places].any(axis=0).sum() > 1 and there[places].any(axis=1).sum() > 1)
            for places in alike(names)
        ),
        "between": {
            f"{vocabulary[a]} - {vocabulary[b]}": int((there[:, a] & there[:, b]).sum())
            for a, b in combinations(range(len(vocabulary)), 2)
        },
    }


def _record(store: Bank, features: FeatureSet, report: dict[str, Any], max_pairs: int, device: str) -> None:
    record = RunRecord.now(
        kind="audit",
        asked={"model": report["model"], "threshold": report["threshold"], "max_pairs": max_pairs},
        used={"feature": features.info.name, "manifest_digest": store.manifest_digest, "device": device},
        metrics={name: value for name, value in report.items() if name not in ("seconds", "feature")},
        seconds={"total": report["seconds"]},
        versions=versions(),
        failures={"failed": report["masked"]},
    )
    keep(record, store.path, report)


def write_pairs(found: Audit, image_ids: list[str], out: Path) -> None:
    """Write the listed pairs as a table (`stores.table_files.write_table`), whole or not at all."""
    columns: dict[str, Any] = {"similarity": found.pairs.similarity.astype(np.float64).tolist()}
    for side, rows in (("a", found.pairs.first.tolist()), ("b", found.pairs.second.tolist())):
        columns[f"row_{side}"] = rows
        columns[f"image_id_{side}"] = [image_ids[row] for row in rows]
        columns |= {f"{name}_{side}": [found.value(name, row) for row in rows] for name in COLUMNS}
    write_table(columns, out)
