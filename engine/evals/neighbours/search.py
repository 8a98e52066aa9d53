"""Search by example: the images of a bank nearest to one of them, or to an image file."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.common.compute import Compute
from engine.evals.common.features import Features
from engine.evals.common.one_line import counted
from engine.evals.common.predictions import Predictions, Table
from engine.evals.common.record import Outcome, Part, Used, keep_record
from engine.evals.common.result import Metric
from engine.evals.common.validity import ValidityIssue
from engine.evals.neighbours.approximate import RECALL_SAMPLE, build, recall
from engine.evals.neighbours.options import INDEXES, Index, SearchOptions
from engine.evals.neighbours.query import embed_file, rows_of
from engine.kernels.device_vectors import resident
from engine.kernels.neighbours import Neighbours, nearest
from engine.kernels.vectors import Distance, Vectors
from stores.json_types import JsonObject

__all__ = [
    "INDEXES",
    "RECALL_SAMPLE",
    "Found",
    "Options",
    "Result",
    "SearchResult",
    "embed_file",
    "evaluate",
    "search",
]


#: Columns reported for each image: codes and vocabulary by name.
COLUMNS = ("label", "split", "group")
Columns = Mapping[str, tuple[NDArray[np.int64], list[str]]]


@dataclass(frozen=True)
class Found:
    """One neighbour; `distance` as the search measured it."""

    rank: int
    row: int
    image_id: str
    label: str
    split: str
    group: str
    distance: float


@dataclass(frozen=True)
class _Image:
    """One image of the features; texts are empty where a column has none."""

    row: int
    image_id: str
    label: str
    split: str
    group: str

    @classmethod
    def of(cls, features: Features, columns: Columns, row: int) -> "_Image":
        texts = {
            name: vocabulary[codes[row]] if codes[row] >= 0 else ""
            for name, (codes, vocabulary) in columns.items()
        }
        return cls(row, features.image_ids[row], **texts)


@dataclass(frozen=True)
class SearchResult:
    """Result of a search.

    Attributes:
        query: `{image_id, row, label, ...}` of an image of the bank, or `{file, in_bank}`: the bank's images
            that are this very file.
        found: neighbours, nearest first.
        report: the JSON document.
        row: of the query, None for a file.
        rows: intp, images that were searched.
        notes: remarks for the reader.
        validity: issues that it knows of.
    """

    query: dict[str, Any]
    found: tuple[Found, ...]
    report: dict[str, Any]
    row: int | None
    rows: NDArray[np.intp] | None = None
    notes: tuple[str, ...] = ()
    validity: tuple[ValidityIssue, ...] = ()

    def __repr__(self) -> str:
        query = self.query.get("image_id", self.query.get("file"))
        first = "".join(f", nearest {hit.image_id!r} at {hit.distance:.4f}" for hit in self.found[:1])
        return f"SearchResult({str(query)!r}: {counted(len(self.found), 'neighbour')}{first})"

    def metrics(self) -> dict[str, Metric]:
        """Return the distance of the nearest image, and the recall of an approximate index."""
        metrics = {"nearest": Metric(self.found[0].distance)} if self.found else {}
        measured = self.report.get(f"recall_at_{self.report.get('k')}")
        return metrics if measured is None else {**metrics, "recall": Metric(measured)}

    def predictions(self) -> Predictions:
        """Return the neighbours: rank and distance of each."""
        rows = np.array([hit.row for hit in self.found], np.intp)
        ranks = np.array([hit.rank for hit in self.found], np.int64)
        distances = np.array([hit.distance for hit in self.found], np.float64)
        return Predictions({"neighbours": Table({"rank": ranks, "distance": distances}, {"": rows})})

    def to_dict(self) -> JsonObject:
        """Return the document without the names of the features."""
        return {name: value for name, value in self.report.items() if name not in _NAMES}


#: Members of a report that are not results.
_NAMES = ("model", "feature", "seconds", "validity")

Options = SearchOptions
Result = SearchResult


def evaluate(features: Features, options: SearchOptions, compute: Compute) -> SearchResult:
    """Find the nearest images.

    Raises:
        Refused: no such image, one without an embedding, a file that cannot be embedded in the same way or
            that is sought in arrays, k larger than the number of images.
    """
    rows = np.flatnonzero(features.ok)
    row = None if options.image_id is None else _row_of(features, options.image_id)
    itself = [row] if row is not None else _same_file(features, options.image)
    if not options.keep_query:
        rows = rows[~np.isin(rows, itself)]
    failed, k = len(features) - int(features.ok.sum()), options.k
    if not 1 <= k <= len(rows):
        raise Refused(
            f"k = {k} with {len(rows)} images to choose from ({failed} failed)",
            f"k is from 1 to {len(rows)} here",
            "choose another --k",
        )
    matrix = features.matrix(compute.device, compute.memory)
    vector = _embedded(features, options) if row is None else matrix[row : row + 1]
    base = resident(Vectors(matrix, rows), compute.device)
    near, about = _search(
        Vectors(vector), base, k, options.distance, options.index, compute.backend, compute.device
    )
    columns = {name: features.texts(name) for name in COLUMNS}
    hits = _describe(features, columns, rows, near)
    query: dict[str, Any] = {
        "file": str(options.image),
        "in_bank": [vars(_Image.of(features, columns, place)) for place in itself],
    }
    if row is not None:
        query = dict(vars(_Image.of(features, columns, row)))
    report = {
        "model": features.title,
        "feature": features.name,
        "query": query,
        "k": k,
        "distance": options.distance,
        "query_listed": options.keep_query,
        **about,
        "images": len(rows),
        "masked": failed,
        "neighbours": [asdict(hit) for hit in hits],
    }
    return SearchResult(query, hits, report, row, rows)


def search(
    bank: Path | str,
    model: str,
    *,
    image: Path | None = None,
    image_id: str | None = None,
    k: int = 10,
    distance: Distance = "cosine",
    index: Index = "exact",
    backend: str = "auto",
    weights: Path | None = None,
    device: str = "auto",
    keep_query: bool = False,
) -> SearchResult:
    """Find the k nearest images of a bank; keep a RunRecord.

    Args:
        model: slug or feature name.
        image, image_id: one of them: a file to embed as the bank's images were, or an image of the bank. The
            query is not among its own neighbours; a file is known by its SHA-256, where the bank has that.
        index: `exact`; `ivf` or `cagra` are FAISS's approximate ones, built for this call, with their recall
            against the exact search measured on a sample of the bank.
        weights: the model's weights file, where it is not at its recorded place any more.
        device: of the search and of embedding; `auto` searches on the CPU (uploading pays only for many
            queries), but CAGRA on a GPU, and embeds where the bank was made if that is here.
        keep_query: list the query among its neighbours if it is an image of the bank.

    Raises:
        Refused: no such image, one without an embedding, a file that cannot be embedded in the same way, k
            larger than the bank.
    """
    start = time.perf_counter()
    options = SearchOptions(image, image_id, k, distance, index, weights, device, keep_query)
    compute = Compute.resolve("cpu" if device == "auto" and index != "cagra" else device, 1, backend)
    features = Features.from_bank(bank, model)
    result = evaluate(features, options, compute)
    report = result.report
    report["seconds"] = round(time.perf_counter() - start, 4)
    about = {name: value for name, value in report.items() if name in _ABOUT or name.startswith("recall")}
    metrics = {
        "rows": [hit.row for hit in result.found],
        "distances": [hit.distance for hit in result.found],
        **about,
    }
    settings: JsonObject = {
        "model": model,
        "query": result.query,
        "k": k,
        "distance": distance,
        "index": index,
    }
    assert result.rows is not None
    used = Used.of(
        features,
        compute,
        {"images": Part.of(result.rows, len(features))},
        backend=report["backend"],
        labelled=False,
    )
    outcome = Outcome(
        metrics, {"total": report["seconds"]}, {"failed": report["masked"]}, predictions=result.predictions()
    )
    keep_record(report, "search", features, settings, used, outcome)
    return result


#: Members of a report that describe the index.
_ABOUT = ("index", "backend", "lists", "visited")


def _row_of(features: Features, image_id: str) -> int:
    ids = features.image_ids
    row = ids.find(image_id)
    if row is None:
        shown = ", ".join(repr(ids[place]) for place in range(min(3, len(ids))))
        where = "The bank has" if features.source is not None else "There are"
        raise Refused(
            f"image id {image_id!r}",
            f"{where} {len(ids)} images, e.g. {shown}",
            "give one of its ids, or a file with --image",
        )
    if not features.ok[row]:
        failures = [] if features.source is None else features.source.features.failures()
        why = next((f"{f.code}: {f.detail}" for f in failures if f.row == row), "failed")
        raise Refused(
            f"image {image_id!r} has no embedding ({why})",
            "Only embedded images have neighbours",
            "repair the file and embed it again, or choose another image",
        )
    return row


def _same_file(features: Features, image: Path | None) -> list[int]:
    """Find the rows of the bank that were made from this very file."""
    source = features.refuse_arrays("A search by an image file")
    assert image is not None
    return rows_of(source.features, source.bank.manifest(), image)


def _embedded(features: Features, options: SearchOptions) -> NDArray[Any]:
    source = features.refuse_arrays("A search by an image file")
    assert options.image is not None
    return embed_file(source.features, options.image, weights=options.weights, device=options.embed_on)


def _describe(
    features: Features, columns: Columns, rows: NDArray[np.intp], near: Neighbours
) -> tuple[Found, ...]:
    places = [int(rows[position]) for position in near.rows[0] if position >= 0]
    return tuple(
        Found(rank=rank, distance=float(distance), **vars(_Image.of(features, columns, row)))
        for rank, (row, distance) in enumerate(zip(places, near.distances[0], strict=False), start=1)
    )


def _search(
    query: Vectors, base: Vectors, k: int, distance: Distance, index: str, backend: str, device: str
) -> tuple[Neighbours, JsonObject]:
    """Return the neighbours, and what the report says of the index."""
    if index == "exact":
        near = nearest(query, base, k, distance=distance, backend=backend, device=device)
        return near, {"index": index, "backend": near.backend}
    approximate = build(index, base, distance, device, k)
    near = approximate.nearest(query, k)
    share, sample = recall(approximate, base, k, backend, device)
    return near, {
        "index": index,
        "backend": "faiss",
        f"recall_at_{k}": share,
        "recall_measured_on": sample,
        **approximate.settings,
    }
