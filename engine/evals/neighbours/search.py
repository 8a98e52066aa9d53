"""Search by example: the images of a bank nearest to one of them, or to an image file."""

import hashlib
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadImage, Refused
from engine.evals.common.one_line import counted
from engine.kernels import faiss_library
from engine.kernels.neighbours import Neighbours, nearest
from engine.kernels.vectors import Distance, Space, Vectors
from engine.versions import versions
from stores.bank.reader import Bank, FeatureSet
from stores.bank.records import RunRecord, keep

if TYPE_CHECKING:
    from stores.manifest.manifest import Manifest

Index = Literal["exact", "ivf", "cagra"]
INDEXES = ("exact", "ivf", "cagra")
#: Rows that an approximate index's recall is measured on.
RECALL_SAMPLE = 200
#: An IVF query visits one list in so many, but at least so many lists; rows a list that it is trained on.
_IVF_ONE_IN, _IVF_LEAST, _IVF_TRAINING = 16, 8, 64


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
class SearchResult:
    """What a search found.

    Attributes:
        query: `{image_id, row, label, ...}` of an image of the bank, or `{file, in_bank}`: the bank's images
            that are this very file.
        found: neighbours, nearest first.
        report: the JSON document.
        row: of the query, None for a file.
    """

    query: dict[str, Any]
    found: tuple[Found, ...]
    report: dict[str, Any]
    row: int | None

    def __repr__(self) -> str:
        query = self.query.get("image_id", self.query.get("file"))
        first = "".join(f", nearest {each.image_id!r} at {each.distance:.4f}" for each in self.found[:1])
        return f"SearchResult({str(query)!r}: {counted(len(self.found), 'neighbour')}{first})"


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
    """The k nearest images of a bank; keeps a RunRecord.

    Args:
        model: slug or feature name.
        image, image_id: one of them: a file to embed as the bank's images were, or an image of the bank. The
            query is not among its own neighbours; a file is known by its SHA-256, where the bank has that.
        index: `exact`; `ivf` or `cagra` are FAISS's approximate ones, built for this call, with their recall
            against the exact search measured on a sample of the bank.
        weights: the model's weights file, where it is not at its recorded place any more.
        device: of the search and of embedding; `auto` searches on the CPU (one query repays no upload) and
            embeds where the bank was made if that is here.
        keep_query: list the query among its neighbours if it is an image of the bank.

    Raises:
        Refused: no such image, one without an embedding, a file that cannot be embedded in the same way, k
            larger than the bank.
    """
    start = time.perf_counter()
    _check(image, image_id, index)
    store = Bank.open(bank)
    features = store.features(model)
    manifest = store.manifest()
    rows = np.flatnonzero(features.ok)
    row = None if image_id is None else _row_of(manifest.image_ids, image_id, features)
    itself = [row] if row is not None else _rows_of(features, manifest, image)
    if not keep_query:
        rows = rows[~np.isin(rows, itself)]
    masked = len(features) - int(features.ok.sum())
    if not 1 <= k <= len(rows):
        raise Refused(
            f"k = {k} with {len(rows)} images to choose from ({masked} failed)",
            f"k is from 1 to {len(rows)} here",
            "choose another --k",
        )
    if row is not None:
        vector = features.array[row : row + 1]
    else:
        assert image is not None
        vector = embed_file(features, image, weights=weights, device=device)
    place = "cpu" if device == "auto" else device
    base = Vectors(features.array, rows)
    near, about = _search(Vectors(vector), base, k, distance, index, backend, place)
    found = _describe(store, manifest, rows, near)
    query: dict[str, Any] = {
        "file": str(image),
        "in_bank": [_facts(store, manifest, each) for each in itself],
    }
    if row is not None:
        query = _facts(store, manifest, row)
    seconds = round(time.perf_counter() - start, 4)
    report = {
        "model": features.title,
        "feature": features.name,
        "query": query,
        "k": k,
        "distance": distance,
        "query_listed": keep_query,
        **about,
        "images": len(rows),
        "masked": masked,
        "neighbours": [dict(each.__dict__) for each in found],
        "seconds": seconds,
    }
    record = RunRecord.now(
        kind="search",
        asked={"model": model, "query": query, "k": k, "distance": distance, "index": index},
        used={"feature": features.info.name, "manifest_digest": store.manifest_digest, "device": place},
        metrics={
            "rows": [each.row for each in found],
            "distances": [each.distance for each in found],
            **about,
        },
        seconds={"total": seconds},
        versions=versions(),
        failures={"failed": report["masked"]},
    )
    keep(record, store.path, report)
    return SearchResult(query, found, report, row)


def _check(image: Path | None, image_id: str | None, index: str) -> None:
    if (image is None) == (image_id is None):
        raise Refused(
            "No query" if image is None else "Two queries",
            "A search starts from one image",
            "give either --image FILE or --id ID",
        )
    if index not in INDEXES:
        raise Refused(f"index {index!r}", f"It is one of {', '.join(INDEXES)}", "choose one")


def _row_of(image_ids: list[str], image_id: str, features: FeatureSet) -> int:
    try:
        row = image_ids.index(image_id)
    except ValueError:
        raise Refused(
            f"image id {image_id!r}",
            f"The bank has {len(image_ids)} images, e.g. {', '.join(map(repr, image_ids[:3]))}",
            "give one of its ids, or a file with --image",
        ) from None
    if not features.ok[row]:
        why = next((f"{f.code}: {f.detail}" for f in features.failures() if f.row == row), "failed")
        raise Refused(
            f"image {image_id!r} has no embedding ({why})",
            "Only embedded images have neighbours",
            "mend the file and embed it again, or choose another image",
        )
    return row


def _rows_of(features: FeatureSet, manifest: "Manifest", image: Path | None) -> list[int]:
    """Rows that were made from this very file: by its content, or by its place where that was not kept."""
    try:
        data = Path(str(image)).read_bytes()
    except OSError:
        return []  # embedding it says why it cannot be read
    digest = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
    same = (features.contents == digest).all(axis=1)
    unknown = ~features.contents.any(axis=1)
    for row in np.flatnonzero(unknown & features.ok).tolist():
        path = manifest.root / manifest.uris[row]
        same[row] = path.name == Path(str(image)).name and path.is_file() and path.samefile(str(image))
    return [int(row) for row in np.flatnonzero(same & features.ok)]


def _facts(store: Bank, manifest: "Manifest", row: int) -> dict[str, Any]:
    facts: dict[str, Any] = {"row": row, "image_id": manifest.image_ids[row]}
    for name in ("label", "split", "group"):
        codes, vocabulary = store.column(name)
        facts[name] = vocabulary[codes[row]] if codes[row] >= 0 else ""
    return facts


def _describe(
    store: Bank, manifest: "Manifest", rows: NDArray[np.intp], near: Neighbours
) -> tuple[Found, ...]:
    places = [int(rows[at]) for at in near.rows[0] if at >= 0]
    return tuple(
        Found(rank=rank, distance=float(distance), **_facts(store, manifest, row))
        for rank, (row, distance) in enumerate(zip(places, near.distances[0], strict=False), start=1)
    )


def _search(
    query: Vectors, base: Vectors, k: int, distance: Distance, index: str, backend: str, device: str
) -> tuple[Neighbours, dict[str, Any]]:
    """Neighbours, and what the report says of the index."""
    if index == "exact":
        near = nearest(query, base, k, distance=distance, backend=backend, device=device)
        return near, {"index": index, "backend": near.backend}
    approximate = _build(index, base, distance)
    near = approximate.nearest(query, k)
    recall, sample = _recall(approximate, base, k, backend, device)
    return near, {
        "index": index,
        "backend": "faiss",
        f"recall_at_{k}": recall,
        "recall_measured_on": sample,
        **approximate.settings,
    }


@dataclass(frozen=True)
class _Approximate:
    """A built FAISS index over the base, prepared by its space."""

    index: Any
    base: Vectors
    space: Space
    settings: dict[str, Any]

    def nearest(self, queries: Vectors, k: int) -> Neighbours:
        """As the index orders them; distances computed again in float64."""
        from engine.kernels.vectors import exact_distances

        stored = queries.slice(0, len(queries))
        _, rows = self.index.search(np.ascontiguousarray(self.space.prepare(stored)[0]), k)
        vectors = self.base.take(rows.clip(min=0).ravel()).astype(np.float64)
        distances = exact_distances(
            stored.astype(np.float64), vectors.reshape(*rows.shape, -1), self.space.distance
        )
        distances[rows < 0] = np.inf
        order = np.lexsort((rows, distances))
        return Neighbours(
            np.take_along_axis(rows, order, 1), np.take_along_axis(distances, order, 1), 0, "faiss"
        )


def _recall(approximate: _Approximate, base: Vectors, k: int, backend: str, device: str) -> tuple[float, int]:
    """Share of the exact k neighbours that the index finds for a sample of the base, and the sample's size.

    An image is not counted as its own neighbour: every index finds that one.
    """
    sample = np.arange(0, len(base), max(1, len(base) // RECALL_SAMPLE))[:RECALL_SAMPLE]
    probes = Vectors(base.take(sample))
    own = sample.astype(np.int64), np.arange(len(base))
    distance = approximate.space.distance
    exact = nearest(probes, base, k, distance=distance, keys=own, backend=backend, device=device).rows
    guessed = approximate.nearest(probes, min(k + 1, len(base))).rows
    hits = 0
    for row, truth, guess in zip(sample, exact, guessed, strict=True):
        hits += len(np.intersect1d(truth[truth >= 0], guess[guess != row][:k]))
    return hits / max(1, int((exact >= 0).sum())), len(sample)


def _build(name: str, base: Vectors, distance: Distance) -> _Approximate:
    """An index over prepared float32 copies of the whole base: 4 bytes a number."""
    faiss = faiss_library.library(f"index {name!r}", "use --index exact")
    space = Space.of(distance, base, base)
    vectors = np.empty((len(base), base.dim), np.float32)
    for start, block in base.blocks():
        vectors[start : start + len(block)] = space.prepare(block)[0]
    if name == "cagra":
        return _Approximate(_cagra(faiss, vectors), base, space, {})
    lists = int(np.clip(round(4 * len(base) ** 0.5), 1, max(1, len(base) // 39)))
    visited = min(lists, max(_IVF_LEAST, lists // _IVF_ONE_IN))
    # Prepared vectors of both spaces have their neighbours by squared Euclidean distance.
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(base.dim), base.dim, lists)
    step = max(1, len(base) // (_IVF_TRAINING * lists))
    index.train(np.ascontiguousarray(vectors[::step]))
    index.add(vectors)
    index.nprobe = visited
    return _Approximate(index, base, space, {"lists": lists, "visited": visited})


def _cagra(faiss: Any, vectors: NDArray[np.float32]) -> Any:
    if not hasattr(faiss, "GpuIndexCagra") or not faiss.get_num_gpus():
        raise Refused(
            "index 'cagra'",
            "It needs a GPU and a FAISS built with cuVS",
            "install faiss-gpu-cuvs on a machine with a GPU, or use --index ivf or exact",
        )
    index = faiss.GpuIndexCagra(faiss_library.gpu_resources(), vectors.shape[1])
    index.train(vectors)
    return index


# --- embedding one file as the bank's images were ---------------------------------------------------------


def embed_file(
    features: FeatureSet, image: Path, *, weights: Path | None = None, device: str = "auto"
) -> NDArray[Any]:
    """Embed one file with the model, recipe, decoder and precision that made the features.

    Reads that file and the weights, nothing else of the bank's images.

    Args:
        weights: the weights file, where it is not at its recorded place any more.
        device: as for `engine.embed.restore.restore`.

    Returns:
        [1, d] in the features' dtype.

    Raises:
        Refused: the weights are not there or not the same, or the file cannot be embedded.
    """
    from engine.decode import make_decoder
    from engine.embed.restore import one_file, restore
    from engine.models import load
    from engine.runtime import HostCopy, fix_flags

    encoder = restore(features.bank, features.name, weights=weights, device=device)
    spec, runtime = encoder.spec, encoder.runtime
    fix_flags(runtime)
    name, _, scaled = features.key.decoder.partition("-")
    decoder = make_decoder(
        name,
        spec.recipe.rendering,
        device=runtime.device,
        threads=runtime.threads,
        batch_size=1,
        dct=scaled == "dct",
    )
    with closing(decoder):
        batch = next(decoder.stream(one_file(image, encoder.made.options.limits), [[0]]))
    if batch.failures:
        raise _unusable(image, batch.failures[0])
    vector = HostCopy(load(spec, runtime)(batch.pixels)).wait().float().numpy()
    found = vector.astype(features.key.dtype)
    if not np.isfinite(found).all():
        raise Refused(
            f"{image} has an embedding that is not finite",
            f"It must fit into {features.key.dtype}",
            "choose another image",
        )
    return found


def _unusable(image: Path, error: BadImage) -> Refused:
    return Refused(
        f"{image} cannot be embedded ({error.code}: {error.detail})",
        "The query is a whole image of an accepted format",
        "choose another file",
    )
