"""The audit of a bank: near-duplicate images, and what leaks from one split into another."""

import time
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.common.compute import Compute
from engine.evals.common.features import Features
from engine.evals.common.predictions import Predictions, Table
from engine.evals.common.record import Outcome, Part, Used, keep_record
from engine.evals.common.result import Metric
from engine.evals.common.validity import ValidityIssue
from engine.evals.neighbours.options import MAX_PAIRS, AuditOptions
from engine.kernels.device_vectors import resident
from engine.kernels.near_duplicates import PairCounts, Pairs, identical_groups, similar_pairs
from engine.kernels.vectors import Vectors
from stores.json_types import JsonObject
from stores.manifest.spellings import spelling_variants
from stores.parquet import Column as TableColumn
from stores.table_files import write_table

__all__ = ["COLUMNS", "MAX_PAIRS", "Audit", "Options", "Result", "audit", "evaluate", "write_pairs"]

#: Columns of which the values of a pair are compared.
COLUMNS = ("label", "split", "group")

Column = tuple[NDArray[np.integer], list[str]]


@dataclass(frozen=True)
class Audit:
    """Result of an audit.

    Attributes:
        pairs: the most similar ones, as rows of the features.
        report: the JSON document.
        columns: name -> (codes, vocabulary) of `COLUMNS`.
        notes: remarks for the reader.
        validity: issues that it knows of.
    """

    pairs: Pairs
    report: JsonObject
    columns: dict[str, Column]
    notes: tuple[str, ...] = ()
    validity: tuple[ValidityIssue, ...] = ()

    def value(self, column: str, row: int) -> str:
        """Return a row's text in a column; empty where missing."""
        codes, vocabulary = self.columns[column]
        return vocabulary[codes[row]] if codes[row] >= 0 else ""

    def metrics(self) -> dict[str, Metric]:
        """Return the number of pairs, and of images in them."""
        names = ("pairs", "images_in_pairs", "across_splits")
        return {name: Metric(float(str(self.report[name]))) for name in names}

    def predictions(self) -> Predictions:
        """Return one table, `pairs`: those listed, the most similar first."""
        first, second = (rows.astype(np.intp) for rows in (self.pairs.first, self.pairs.second))
        columns: dict[str, TableColumn] = {"similarity": self.pairs.similarity.astype(np.float64)}
        return Predictions({"pairs": Table(columns, {"_a": first, "_b": second})})

    def to_dict(self) -> JsonObject:
        """Return the document without the names of the features."""
        return {name: value for name, value in self.report.items() if name not in _NAMES}


#: Members of a report that are not results.
_NAMES = ("model", "feature", "seconds", "validity")

Options = AuditOptions
Result = Audit


def evaluate(features: Features, options: AuditOptions, compute: Compute) -> Audit:
    """Find near-duplicates by features, and patients in several splits.

    Raises:
        Refused: fewer than two images with an embedding.
    """
    rows = np.flatnonzero(features.ok)
    if len(rows) < 2:
        raise Refused(
            f"{len(rows)} of {len(features)} images have an embedding",
            "Pairs need two",
            "see `embank bank show --failures`",
        )
    columns: dict[str, Column] = {name: features.texts(name) for name in COLUMNS}
    vectors = resident(Vectors(features.matrix(compute.device, compute.memory), rows), compute.device)
    tally = PairCounts({name: codes[rows] for name, (codes, _) in columns.items()}, len(rows))
    near = similar_pairs(
        vectors, options.threshold, limit=options.max_pairs, tally=tally, device=compute.device
    )
    report: JsonObject = {
        "model": features.title,
        "feature": features.name,
        "threshold": options.threshold,
        "images": len(rows),
        "masked": len(features) - len(rows),
        **_counts(tally),
        "listed": len(near),
        "identical": _identical(vectors, columns["split"][0][rows], compute.device),
        "groups": _groups_across_splits(columns["group"], columns["split"]),
    }
    return Audit(Pairs(rows[near.first], rows[near.second], near.similarity), report, columns)


def audit(
    bank: Path | str, model: str, *, threshold: float = 0.99, max_pairs: int = 10_000, device: str = "cpu"
) -> Audit:
    """Find near-duplicates by a model's features, and patients in several splits; keep a RunRecord.

    Args:
        model: slug or feature name; similarity means more for a model trained on such images.
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
    options, compute = AuditOptions(threshold, max_pairs), Compute.resolve(device, 1)
    features = Features.from_bank(bank, model)
    result = evaluate(features, options, compute)
    report = result.report
    report["seconds"] = round(time.perf_counter() - start, 4)
    settings: JsonObject = {"model": report["model"], "threshold": threshold, "max_pairs": max_pairs}
    parts = {"images": Part.of(np.flatnonzero(features.ok), len(features))}
    outcome = Outcome(
        {name: value for name, value in report.items() if name not in ("seconds", "feature")},
        {"total": report["seconds"]},
        failures={"failed": report["masked"]},
        predictions=result.predictions(),
    )
    keep_record(
        report, "audit", features, settings, Used.of(features, compute, parts, backend="array"), outcome
    )
    return result


def _counts(tally: PairCounts) -> JsonObject:
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


def _identical(vectors: Vectors, split: NDArray[np.integer], device: str) -> JsonObject:
    """Count images whose embeddings are equal byte for byte: most often the same file twice."""
    groups = identical_groups(vectors, device)
    across = sum(len(np.unique(split[group][split[group] >= 0])) > 1 for group in groups)
    return {
        "groups": len(groups),
        "images": sum(len(group) for group in groups),
        "groups_across_splits": int(across),
    }


def _groups_across_splits(group: Column, split: Column) -> JsonObject:
    """Count groups (patients) with images in several splits, by the manifest's columns alone."""
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
            for places in spelling_variants(names)
        ),
        "between": {
            f"{vocabulary[a]} - {vocabulary[b]}": int((there[:, a] & there[:, b]).sum())
            for a, b in combinations(range(len(vocabulary)), 2)
        },
    }


def write_pairs(result: Audit, image_ids: list[str], out: Path) -> None:
    """Write the listed pairs as a table (`stores.table_files.write_table`), whole or not at all."""
    columns: dict[str, list[Any]] = {"similarity": result.pairs.similarity.astype(np.float64).tolist()}
    for side, rows in (("a", result.pairs.first.tolist()), ("b", result.pairs.second.tolist())):
        columns[f"row_{side}"] = rows
        columns[f"image_id_{side}"] = [image_ids[row] for row in rows]
        columns |= {f"{name}_{side}": [result.value(name, row) for row in rows] for name in COLUMNS}
    write_table(columns, out)
