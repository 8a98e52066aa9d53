"""Project the embeddings of a bank into the plane, by principal components or by UMAP."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.common.features import Features
from engine.kernels.episodes import Stream
from engine.kernels.principal_components import principal_components
from engine.kernels.umap_library import import_umap, umap_coordinates
from stores.json_types import JsonObject
from stores.limits import check_memory, check_seed

#: The most images that are projected.
MOST = 20_000
METHODS = ("pca", "umap")


@dataclass(frozen=True, eq=False)
class Projection:
    """Images in the plane.

    Attributes:
        rows: intp [n], of the bank, ascending; coordinates: float64 [n, 2].
        cells: texts of the column that colours them, "" where missing; empty without a column.
        report: `{model, method, column, split, images, of, failed, seed, explained}`; the last of `pca`.
    """

    rows: NDArray[np.intp]
    coordinates: NDArray[np.float64]
    cells: tuple[str, ...]
    report: JsonObject


def project(
    bank: Path | str, model: str, method: str = "pca", column: str | None = None, split: str | None = None,
    seed: int = 0,
) -> Projection:  # fmt: skip
    """Project the usable rows of a feature, at most 20,000 of them (`drawn`).

    Args:
        method: `pca`, of centred, unscaled rows in float64, or `umap`.
        column: of the manifest, that colours the points; None for the label where images have one.
        split: images of this one only; None for all.
        seed: of the draw, and of UMAP.

    Raises:
        Refused: no such column or split, fewer than three usable images, embeddings that are all the same, or
            UMAP without umap-learn. BankError: no such bank or feature, or a damaged one.
    """
    if method not in METHODS:
        raise Refused(f"method {method!r}", f"It is {' or '.join(METHODS)}", f"take {METHODS[0]}")
    check_seed(seed)
    if method == "umap":
        import_umap()
    features = Features.from_bank(bank, model)
    inside = _inside(features, split)
    usable = np.flatnonzero(features.ok & inside)
    rows = drawn(usable, len(features), seed, features.data_set)
    cells = _cells(features, column, rows)
    embeddings = _embeddings(features, rows)
    report: JsonObject = {
        "model": features.title,
        "method": method,
        "column": (column or "label") if cells else None,
        "split": split,
        "images": len(rows),
        "of": len(usable),
        "failed": int((inside & ~features.ok).sum()),
        "seed": seed,
    }
    if method == "umap":
        return Projection(rows, umap_coordinates(embeddings, seed), cells, report)
    components = principal_components(embeddings)
    report["explained"] = [*components.shares.tolist()]
    return Projection(rows, components.coordinates, cells, report)


def drawn(rows: NDArray[np.intp], count: int, seed: int, data_set: str, most: int = MOST) -> NDArray[np.intp]:
    """Return the `most` rows with the smallest numbers, ascending: the same for all models of a data set.

    Each of `count` images gets a number from numpy's Philox4x64, whose key is the first 128 bits, little
    endian, of SHA-256 over `embank scatter 1 <JSON [seed, data set]>`. A failed image is replaced by one
    other.
    """
    if len(rows) <= most:
        return rows
    text = f"embank scatter 1 {json.dumps([seed, data_set])}"
    numbers = Stream(hashlib.sha256(text.encode("ascii")).digest()[:16]).uniform(count)
    return np.sort(rows[np.argsort(numbers[rows], kind="stable")[:most]])


def _inside(features: Features, split: str | None) -> NDArray[np.bool_]:
    if split is None:
        return np.ones(len(features), np.bool_)
    inside = features.split_rows({"shown": split}).rows["shown"]
    if not inside.any():
        known = ", ".join(features.split_names)
        remedy = "name one of these" if known else f"leave --split out, or {features.split_remedy}"
        raise Refused(f"split {split!r}", f"The bank has {known or 'no splits'}", remedy)
    return inside


def _cells(features: Features, column: str | None, rows: NDArray[np.intp]) -> tuple[str, ...]:
    """Return the texts of the column; none where there is no label and no column was named."""
    codes, names = features.texts("label") if column in (None, "label") else _column(features, str(column))
    if column is None and not (codes >= 0).any():
        return ()
    return tuple(names[code] if code >= 0 else "" for code in codes[rows].tolist())


def _column(features: Features, column: str) -> tuple[NDArray[np.int64], list[str]]:
    cells = features.column(column)
    return cells.codes, [*(cells.names or ())]


def _embeddings(features: Features, rows: NDArray[np.intp]) -> NDArray[np.floating]:
    """Return the embeddings of rows, checked to be a cloud of points."""
    dim = features.array.shape[1]
    if len(rows) < 3 or dim < 2:
        raise Refused(
            f"{len(rows)} images with an embedding of {dim} dimensions",
            "A picture in the plane takes three images and two dimensions",
            "see `embank bank show --failures`",
        )
    side = min(len(rows), dim)
    check_memory(8 * (2 * len(rows) * dim + 3 * side * side), "The projection", "take one split with --split")
    embeddings: NDArray[np.floating] = np.asarray(features.array[rows])
    if (embeddings == embeddings[0]).all():
        raise Refused(
            f"{len(rows)} embeddings that are all the same",
            "A picture shows how embeddings differ",
            "look at the images, and at `embank bank show`",
        )
    return embeddings
