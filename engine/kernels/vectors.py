"""Stored feature vectors as the neighbour kernels see them: widened block by block, never all at once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Distance = Literal["cosine", "euclidean"]

#: Bytes of float32 that a block of vectors may take.
BLOCK_BYTES = 64 << 20
#: Bytes of float32 that are widened at a time.
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Vectors:
    """Some rows of an array of features.

    Attributes:
        array: [N, d] of any float type; may be a read-only mapping of files.
        rows: intp [n], the rows meant, in order; None means all of them.
    """

    array: NDArray[Any]
    rows: NDArray[np.intp] | None = None

    def __len__(self) -> int:
        return len(self.array) if self.rows is None else len(self.rows)

    @property
    def dim(self) -> int:
        return int(self.array.shape[1])

    def slice(self, start: int, stop: int) -> NDArray[Any]:
        """Vectors `start` to `stop` in the stored dtype; a view where that is possible."""
        return self.array[start:stop] if self.rows is None else self.array[self.rows[start:stop]]

    def take(self, positions: NDArray[np.intp]) -> NDArray[Any]:
        """A copy of the vectors at some positions, in the stored dtype."""
        found: NDArray[Any] = self.array[positions if self.rows is None else self.rows[positions]]
        return found

    def blocks(self, size: int | None = None) -> Iterator[tuple[int, NDArray[Any]]]:
        """(start, vectors) of consecutive blocks; by default as many as fill BLOCK_BYTES in float32."""
        size = size or block_rows(self.dim)
        for start in range(0, len(self), size):
            yield start, self.slice(start, min(start + size, len(self)))


def block_rows(dim: int) -> int:
    """Vectors of `dim` float32 that fill BLOCK_BYTES; at least 64, at most 8192."""
    return int(np.clip(BLOCK_BYTES // (4 * max(dim, 1)), 64, 8192))


@dataclass(frozen=True)
class Space:
    """How vectors are prepared so that one float32 matrix product scores all pairs; larger is nearer.

    cosine: vectors become unit vectors (zero stays zero), the score is their product. euclidean: vectors are
    moved to the base's mean, which takes most of the cancellation out of |q - b|^2 = |q|^2 - 2 qb + |b|^2,
    and divided by their largest component; the score is minus half the squared distance, so prepared.

    Attributes:
        distance: `cosine` or `euclidean`.
        centre, scale: of the euclidean preparation.
    """

    distance: Distance
    centre: NDArray[Any] | float
    scale: float

    @classmethod
    def of(cls, distance: Distance, queries: Vectors, base: Vectors) -> "Space":
        """The preparation for these queries and this base: one pass over each for euclidean, none else."""
        if distance == "cosine":
            return cls(distance, 0.0, 1.0)
        total = np.zeros(base.dim, np.float64)
        for _, block in base.blocks():
            total += block.sum(axis=0, dtype=np.float64)
        centre = total / len(base)
        centre = centre.astype(np.float32) if base.array.dtype.itemsize <= 4 else centre
        sides = (queries, base) if queries is not base else (base,)
        peak = max(float(np.abs(block - centre).max()) for side in sides for _, block in side.blocks())
        return cls(distance, centre, peak or 1.0)

    def prepare(self, vectors: Any, xp: ModuleType = np) -> tuple[Any, Any]:
        """Prepared float32 vectors [n, d] and what to subtract from each product: float32 [n], or 0.

        Args:
            vectors: [n, d] of any float type, of `xp`.
            xp: numpy or torch.
        """
        if self.distance == "euclidean":
            centre = self.centre if xp is np else xp.as_tensor(self.centre, device=vectors.device)
            moved = _float32((vectors - centre) / self.scale, xp)
            return moved, xp.einsum("ij,ij->i", moved, moved) / 2
        if vectors.dtype not in (np.float16, getattr(xp, "float16", np.float16)):
            # Numbers of any size: their squares must neither overflow nor vanish.
            peak = abs(vectors).max(1) if xp is np else abs(vectors).amax(1)
            vectors = vectors / xp.where(peak > 0, peak, xp.ones_like(peak))[:, None]
        x = _float32(vectors, xp)
        norm = xp.einsum("ij,ij->i", x, x) ** 0.5
        return x / xp.where(norm > 0, norm, xp.ones_like(norm))[:, None], 0.0

    def rounding(self, dim: int, query: NDArray[Any], longest: float) -> NDArray[np.float64]:
        """How far a float32 score may be from the exact one, float64 [n].

        Four times sqrt(d + 8) u |q| |b|: rounding errors of a product of d terms grow like sqrt(d), with
        overwhelming probability (Higham and Mary, SIAM J. Sci. Comput. 2019, 41, A2815), and vectors were
        rounded once before.

        Args:
            query: prepared vectors [n, d].
            longest: length of the longest prepared base vector.
        """
        unit = 2.0 * np.sqrt(dim + 8.0) * np.finfo(np.float32).eps
        length = np.sqrt(np.einsum("ij,ij->i", query, query).astype(np.float64))
        # In euclidean space the squared lengths are summed and rounded too.
        size: NDArray[np.float64] = length * longest if self.distance == "cosine" else (length + longest) ** 2
        error: NDArray[np.float64] = unit * size
        return error

    def score(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores that belong to exact distances."""
        if self.distance == "cosine":
            return 1.0 - distances
        scores: NDArray[np.float64] = -((distances / self.scale) ** 2) / 2
        return scores


def prepared_blocks(
    vectors: Vectors, space: Space, size: int, threads: int = 1
) -> Iterator[tuple[int, NDArray[np.float32], Any]]:
    """(start, prepared, subtract) of blocks of `size`, as `Space.prepare` gives them.

    All blocks share one buffer: each is gone when the next one comes. It is filled in pieces that stay in
    the cache, which takes half the time of one pass after another over a large new array.
    """
    buffer = np.empty((min(size, len(vectors)), vectors.dim), np.float32)
    subtract = np.empty(len(buffer), np.float32)
    step = max(16, _PIECE_BYTES // (4 * max(vectors.dim, 1)))

    def fill(start: int, stop: int, origin: int) -> None:
        at = slice(start - origin, stop - origin)
        buffer[at], subtract[at] = space.prepare(vectors.slice(start, stop))

    with ThreadPoolExecutor(threads) as pool:
        for origin in range(0, len(vectors), size):
            end = min(origin + size, len(vectors))
            starts = range(origin, end, step)
            list(pool.map(fill, starts, [min(s + step, end) for s in starts], [origin] * len(starts)))
            yield origin, buffer[: end - origin], subtract[: end - origin]


def _float32(values: Any, xp: ModuleType) -> Any:
    return values.astype(np.float32, copy=False) if xp is np else values.to(xp.float32)


def exact_distances(
    queries: NDArray[np.float64], vectors: NDArray[np.float64], distance: Distance
) -> NDArray[np.float64]:
    """Distances [n, m] between queries [n, d] and their own candidates [n, m, d], in float64.

    The dot product is taken on the stored numbers and divided by the norms last: for float16 features every
    term is exact, so equal vectors have equal distances wherever they lie. cosine: 1 - cosine similarity, 1
    where a vector is zero.
    """
    if distance == "euclidean":
        difference = vectors - queries[:, None, :]
        found: NDArray[np.float64] = np.sqrt(np.einsum("qmd,qmd->qm", difference, difference))
        return found
    dots = np.einsum("qmd,qd->qm", vectors, queries)
    squares = np.einsum("qmd,qmd->qm", vectors, vectors)
    # sqrt(|q|^2 |b|^2) rather than the product of two roots: a vector is at distance 0 from itself.
    lengths = np.sqrt(squares * np.einsum("qd,qd->q", queries, queries)[:, None])
    similarity = np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0)
    distances: NDArray[np.float64] = 1.0 - np.clip(similarity, -1.0, 1.0)
    return distances
