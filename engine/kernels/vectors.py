"""Stored feature vectors for the neighbour kernels, widened block by block, never all at once."""

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
#: Bytes of float32 widened at a time.
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Vectors:
    """Selected rows of an array of features.

    Attributes:
        array: [N, d] of any float type: numpy, possibly memory-mapped and read-only, or a torch tensor, of
            which `engine.kernels.device_vectors` takes rows on its device.
        rows: intp [n], positions of the selected rows, in order; None means all.
    """

    array: Any
    rows: NDArray[np.intp] | None = None

    def __len__(self) -> int:
        return len(self.array) if self.rows is None else len(self.rows)

    @property
    def dim(self) -> int:
        return int(self.array.shape[1])

    def on_host(self) -> "Vectors":
        """Return the vectors in numpy; a tensor of a device is copied."""
        if isinstance(self.array, np.ndarray):
            return self
        on_host = self.array.detach().cpu()
        return Vectors((on_host.float() if "bfloat16" in str(on_host.dtype) else on_host).numpy(), self.rows)

    def slice(self, start: int, stop: int) -> NDArray[Any]:
        """Return vectors `start` to `stop` in the stored dtype; a view where possible."""
        block: NDArray[Any] = (
            self.array[start:stop] if self.rows is None else self.array[self.rows[start:stop]]
        )
        return block

    def take(self, positions: NDArray[np.intp]) -> NDArray[Any]:
        """Return a copy of the vectors at these positions, in the stored dtype."""
        vectors: NDArray[Any] = self.array[positions if self.rows is None else self.rows[positions]]
        return vectors

    def take_into(self, positions: NDArray[np.intp], out: NDArray[Any]) -> None:
        """Copy the vectors at these positions, none negative, into an array [n, d] of the stored dtype."""
        rows = positions if self.rows is None else self.rows[positions]
        # "raise", the default, would go through another buffer.
        np.take(self.array, rows, axis=0, out=out, mode="clip")

    def blocks(self, size: int | None = None) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield (start, vectors) of consecutive blocks, by default of BLOCK_BYTES in float32."""
        size = size or block_rows(self.dim)
        for start in range(0, len(self), size):
            yield start, self.slice(start, min(start + size, len(self)))


def block_rows(dim: int) -> int:
    """Return the number of float32 vectors of `dim` numbers that fill BLOCK_BYTES, within 64 to 8192."""
    return int(np.clip(BLOCK_BYTES // (4 * max(dim, 1)), 64, 8192))


@dataclass(frozen=True)
class Space:
    """A distance, with the preparation after which one float32 matrix product scores all pairs.

    A larger score means nearer. cosine: vectors are scaled to length one (zero stays zero), and the score is
    their product. euclidean: vectors are shifted by the base's mean, which avoids most of the cancellation in
    |q - b|^2 = |q|^2 - 2 qb + |b|^2, and divided by their largest component; the score is minus half the
    squared distance of prepared vectors.

    Attributes:
        distance: `cosine` or `euclidean`.
        centre, scale: of the Euclidean preparation: an array and a number, or tensors of a device.
    """

    distance: Distance
    centre: Any
    scale: Any

    @classmethod
    def of(cls, distance: Distance, queries: Vectors, base: Vectors) -> "Space":
        """Create the preparation for queries and a base; Euclidean distance takes one pass over each."""
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
        """Return prepared float32 vectors [n, d] and what to subtract from each product: float32 [n], or 0.

        Args:
            vectors: [n, d] of any float type, of `xp`.
            xp: numpy or torch.
        """
        if self.distance == "euclidean":
            centre = self.centre if xp is np else xp.as_tensor(self.centre, device=vectors.device)
            shifted = _float32((vectors - centre) / self.scale, xp)
            return shifted, xp.einsum("ij,ij->i", shifted, shifted) / 2
        if vectors.dtype not in (np.float16, getattr(xp, "float16", np.float16)):
            # Scaled first, so that squares of very large or small numbers neither overflow nor underflow.
            peak = abs(vectors).max(1) if xp is np else abs(vectors).amax(1)
            vectors = vectors / xp.where(peak > 0, peak, xp.ones_like(peak))[:, None]
        x = _float32(vectors, xp)
        norm = xp.einsum("ij,ij->i", x, x) ** 0.5
        return x / xp.where(norm > 0, norm, xp.ones_like(norm))[:, None], 0.0

    def rounding(self, dim: int, query: NDArray[Any], longest: float) -> NDArray[np.float64]:
        """Return a bound of the error of float32 scores, float64 [n].

        The bound is 4 sqrt(d + 8) u |q| |b|: rounding errors of a product of d terms grow like sqrt(d) with
        overwhelming probability (Higham and Mary, SIAM J. Sci. Comput. 2019, 41, A2815), and the vectors
        themselves were rounded once.

        Args:
            query: prepared vectors [n, d].
            longest: length of the longest prepared base vector.
        """
        unit = 2.0 * np.sqrt(dim + 8.0) * np.finfo(np.float32).eps
        length = np.sqrt(np.einsum("ij,ij->i", query, query).astype(np.float64))
        # In Euclidean space the squared lengths are summed and rounded, too.
        size: NDArray[np.float64] = length * longest if self.distance == "cosine" else (length + longest) ** 2
        error: NDArray[np.float64] = unit * size
        return error

    def score(self, distances: Any) -> Any:
        """Return the scores that correspond to exact distances, float64 of any shape: numpy or torch."""
        if self.distance == "cosine":
            return 1.0 - distances
        return -((distances / self.scale) ** 2) / 2


def prepared_blocks(
    vectors: Vectors, space: Space, size: int, threads: int = 1
) -> Iterator[tuple[int, NDArray[np.float32], Any]]:
    """Yield (start, prepared, subtract) of blocks of `size`, see `Space.prepare`.

    All blocks share one buffer: a block is valid until the next one. The buffer is filled in chunks that stay
    in the cache, which takes half the time of several passes over a large new array.
    """
    buffer = np.empty((min(size, len(vectors)), vectors.dim), np.float32)
    subtract = np.empty(len(buffer), np.float32)
    step = max(16, _PIECE_BYTES // (4 * max(vectors.dim, 1)))

    def fill(start: int, stop: int, origin: int) -> None:
        block = slice(start - origin, stop - origin)
        buffer[block], subtract[block] = space.prepare(vectors.slice(start, stop))

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
    """Return float64 distances [n, m] between queries [n, d] and each query's candidates [n, m, d].

    The dot product uses the stored numbers and is divided by the norms last: for float16 features every term
    is exact, so that equal vectors have equal distances wherever they are stored. The cosine distance is
    1 - cosine similarity, or 1 if a vector is zero.
    """
    if distance == "euclidean":
        difference = vectors - queries[:, None, :]
        euclidean: NDArray[np.float64] = np.sqrt(np.einsum("qmd,qmd->qm", difference, difference))
        return euclidean
    dots = np.einsum("qmd,qd->qm", vectors, queries)
    squares = np.einsum("qmd,qmd->qm", vectors, vectors)
    # sqrt(|q|^2 |b|^2), not the product of two roots, so that a vector is at distance 0 from itself.
    lengths = np.sqrt(squares * np.einsum("qd,qd->q", queries, queries)[:, None])
    similarity = np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0)
    distances: NDArray[np.float64] = 1.0 - np.clip(similarity, -1.0, 1.0)
    return distances
