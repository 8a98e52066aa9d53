"""Feature vectors on a device for the neighbour kernels: resident where they fit, else uploaded in blocks.

Everything stays in the stored precision; prepared copies are made on the device, block by block.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels.vectors import Distance, Space, Vectors, block_rows
from engine.runtime.devices import device_memory
from engine.runtime.uploads import placed, torch_dtype, upload, uploaded_blocks

if TYPE_CHECKING:
    import torch

#: Vectors take at most one in so many bytes of a device's free memory; the rest is for what is made of them.
SHARE = 2
#: Bytes of float64 that are refined at a time.
REFINE_BYTES = 128 << 20


def resident(vectors: Vectors, device: str) -> Vectors:
    """Return the vectors on a device, in their stored precision, where they fit; else the same vectors.

    Args:
        vectors: of an array, or of a tensor, which is used where it lies if that is the device.
        device: `cpu`, where nothing is copied and a tensor becomes an array, or `cuda:N`.
    """
    if device == "cpu" or (not isinstance(vectors.array, np.ndarray) and not vectors.array.is_cuda):
        vectors = vectors.on_host()
    if device == "cpu":
        return vectors
    if not isinstance(vectors.array, np.ndarray):
        return Vectors(vectors.array.to(device), vectors.rows)
    size = len(vectors) * vectors.dim * vectors.array.dtype.itemsize
    if size > device_memory(device)[0] // SHARE:
        return vectors
    return Vectors(upload(vectors.array, device, vectors.rows))


@dataclass(frozen=True)
class DeviceVectors:
    """Vectors that a device computes with.

    Attributes:
        vectors: the array or tensor, and its selected rows.
        device: `cpu` or `cuda:N`.
        rows: int64 [n] on the device, positions in the resident tensor; None for all.
    """

    vectors: Vectors
    device: str
    rows: "torch.Tensor | None" = None

    @classmethod
    def of(cls, vectors: Vectors, device: str) -> "DeviceVectors":
        """Use vectors as `resident` has placed them."""
        resides = not isinstance(vectors.array, np.ndarray)
        return cls(
            vectors, device, placed(vectors.rows, device) if resides and vectors.rows is not None else None
        )

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dim(self) -> int:
        """Numbers of a vector."""
        return self.vectors.dim

    @property
    def resides(self) -> bool:
        """Whether all vectors are on the device."""
        return not isinstance(self.vectors.array, np.ndarray)

    @property
    def kind(self) -> "torch.dtype":
        """The stored type."""
        array = self.vectors.array
        kind: torch.dtype = torch_dtype(array.dtype) if isinstance(array, np.ndarray) else array.dtype
        return kind

    def slice(self, start: int, stop: int) -> "torch.Tensor":
        """Return vectors `start` to `stop` on the device; those that do not reside there are uploaded."""
        if not self.resides:
            return upload(self.vectors.array, self.device, self._positions()[start:stop])
        array: torch.Tensor = self.vectors.array
        return array[start:stop] if self.rows is None else array[self.rows[start:stop]]

    def take(self, positions: "torch.Tensor") -> "torch.Tensor":
        """Return resident vectors at positions, int64 [n] on the device."""
        array: torch.Tensor = self.vectors.array
        return array[positions if self.rows is None else self.rows[positions]]

    def pick(self, positions: NDArray[np.intp]) -> "torch.Tensor":
        """Return the vectors at positions that the host knows, on the device."""
        if self.resides:
            return self.take(placed(positions, self.device))
        return upload(self.vectors.array, self.device, self._positions()[positions])

    def blocks(self, size: int | None = None, start: int = 0) -> "Iterator[tuple[int, torch.Tensor]]":
        """Yield (position, vectors) of consecutive blocks from `start` on.

        Blocks of vectors that do not reside are uploaded while the device computes on those before.
        """
        size = size or block_rows(self.dim)
        if self.resides:
            for position in range(start, len(self), size):
                yield position, self.slice(position, min(position + size, len(self)))
            return
        rows = self._positions()[start:]
        for position, block in uploaded_blocks(self.vectors.array, self.device, size, rows):
            yield start + position, block

    def _positions(self) -> NDArray[np.intp]:
        return np.arange(len(self)) if self.vectors.rows is None else self.vectors.rows


def space_of(distance: Distance, queries: DeviceVectors, base: DeviceVectors) -> Space:
    """Create the preparation for queries and a base; its centre and scale stay on the device.

    The centre of a base that does not reside on the device is computed on the host, so that it is uploaded
    once.
    """
    import torch

    if distance == "cosine":
        return Space(distance, 0.0, 1.0)
    if not (base.resides and queries.resides):
        space = Space.of(distance, queries.vectors.on_host(), base.vectors.on_host())
        centre = placed(np.asarray(space.centre), base.device)
        return Space(distance, centre, placed(np.asarray(space.scale), base.device))
    total = torch.zeros(base.dim, dtype=torch.float64, device=base.device)
    for _, block in base.blocks():
        total += block.sum(0, dtype=torch.float64)
    centre = total / len(base)
    centre = centre.float() if base.kind.itemsize <= 4 else centre
    sides = (base,) if queries is base else (queries, base)
    peaks = [(block - centre).abs().amax().double() for side in sides for _, block in side.blocks()]
    peak = torch.stack(peaks).amax()
    return Space(distance, centre, torch.where(peak > 0, peak, torch.ones_like(peak)))


def prepare(space: Space, stored: "torch.Tensor") -> "tuple[torch.Tensor, Any]":
    """Return what `Space.prepare` returns, for tensors of any float type."""
    import torch

    # A division in bfloat16 would round the vectors.
    return space.prepare(stored.float() if stored.dtype == torch.bfloat16 else stored, torch)


def rounding(space: Space, dim: int, prepared: "torch.Tensor", longest: "torch.Tensor") -> "torch.Tensor":
    """Return the bound of `Space.rounding`, float64 [n]; `longest` is a number of the device."""
    unit = 2.0 * float(np.sqrt(dim + 8.0)) * float(np.finfo(np.float32).eps)
    length = (prepared * prepared).sum(1, dtype=prepared.dtype).double().sqrt()
    size = length * longest if space.distance == "cosine" else (length + longest) ** 2
    return unit * size


def squares_of(stored: "torch.Tensor") -> "torch.Tensor":
    """Return the squared lengths of vectors [n, d], float64 [n]."""
    wide = stored.double()
    return _ordered_sum(wide * wide)


def squares_in_steps(stored: "torch.Tensor") -> "torch.Tensor":
    """Return what `squares_of` returns, for any number of vectors."""
    return in_steps(len(stored), stored.shape[1], lambda start, stop: squares_of(stored[start:stop]))


def pair_distances(
    left: "torch.Tensor",
    right: "torch.Tensor",
    left_squares: "torch.Tensor | None",
    right_squares: "torch.Tensor | None",
    distance: Distance,
) -> "torch.Tensor":
    """Return float64 distances [n] of pairs of stored vectors [n, d]; see `vectors.exact_distances`.

    Args:
        left, right: stored vectors [n, d].
        left_squares, right_squares: their squared lengths, float64 [n], for the cosine distance.
    """
    import torch

    if distance == "euclidean":
        difference = right.double() - left.double()
        return _ordered_sum(difference * difference).sqrt()
    assert left_squares is not None and right_squares is not None
    dots = _ordered_sum(right.double() * left.double())
    lengths = (right_squares * left_squares).sqrt()
    similarity = torch.where(lengths > 0, dots / lengths, torch.zeros_like(dots))
    return 1.0 - similarity.clamp(-1.0, 1.0)


def _ordered_sum(terms: "torch.Tensor") -> "torch.Tensor":
    """Sum terms [n, d] along their rows, in halves; overwrites them.

    A device's own sum takes the terms in an order that depends on where a row lies and how many there are:
    equal vectors would be at distances that differ in the last bit. Halves are the same for all.
    """
    width = terms.shape[1]
    while width > 1:
        half = (width + 1) // 2
        terms[:, : width - half] += terms[:, half:width]
        width = half
    return terms[:, 0]


def in_steps(count: int, dim: int, compute: "Callable[[int, int], torch.Tensor]") -> "torch.Tensor":
    """Return what `compute` returns for [start, stop) of `count` pairs, joined; few enough fit in float64."""
    import torch

    step = max(1, REFINE_BYTES // (8 * max(1, dim)))
    return torch.cat([compute(at, min(at + step, count)) for at in range(0, max(count, 1), step)])
