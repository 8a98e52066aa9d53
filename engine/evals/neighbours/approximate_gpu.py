"""FAISS's approximate indices on a CUDA device, built from vectors that are there."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import Refused
from engine.kernels import device_vectors, faiss_library
from engine.kernels.device_vectors import DeviceVectors, pair_distances, prepare, squares_of
from engine.kernels.neighbours import Neighbours
from engine.kernels.vectors import Distance, Space, Vectors
from engine.runtime import device_number, fetched, placed
from engine.runtime.flags import float32_products
from stores.json_types import JsonObject

if TYPE_CHECKING:
    import torch

#: Neighbours for which CAGRA is searched, at most; lists that an IVF query visits, at most.
CAGRA_MAX_NEIGHBOURS, MAX_VISITED = 1024, faiss_library.GPU_MAX_NEIGHBOURS
#: CAGRA's own number of candidates, and the step that it is raised in for more neighbours.
_CAGRA_CANDIDATES, _CAGRA_STEP = 64, 32
#: Neighbours of a vector in the graph that CAGRA begins with: the base has more vectors.
_CAGRA_DEGREE = 128


@dataclass(frozen=True)
class ApproximateOnGpu:
    """A built FAISS index on a CUDA device over the base, prepared by its space.

    Attributes:
        index: FAISS's.
        base: the vectors it was built from.
        space, settings: as of `Approximate`.
        candidates: CAGRA's own number of candidates; 0 for an index without one.
        prepared: the prepared vectors, which CAGRA reads where they are.
    """

    index: Any
    base: DeviceVectors
    space: Space
    settings: JsonObject
    candidates: int = 0
    prepared: "torch.Tensor | None" = None

    def nearest(self, queries: Vectors, k: int) -> Neighbours:
        """Search the index, in its own order; distances are computed again in float64."""
        import torch

        device = self.base.device
        with torch.no_grad(), float32_products():
            there = DeviceVectors.of(device_vectors.resident(queries, device), device)
            stored = there.slice(0, len(there))
            rows = self._rows(prepare(self.space, stored)[0], k)
            flat = rows.clamp(min=0).flatten()
            near_vectors = self.base.take(flat) if self.base.resides else self.base.pick(fetched(flat)[0])
            left = stored.repeat_interleave(k, dim=0)
            lengths = squares_of(left), squares_of(near_vectors)
            distances = pair_distances(left, near_vectors, *lengths, self.space.distance).view(rows.shape)
            distances = distances.masked_fill(rows < 0, torch.inf)
            near, far = fetched(rows, distances)
        order = np.lexsort((near, far))
        return Neighbours(np.take_along_axis(near, order, 1), np.take_along_axis(far, order, 1), 0, "faiss")

    def _rows(self, prepared: "torch.Tensor", k: int) -> "torch.Tensor":
        """Return the positions int64 [n, k] that the index finds; -1 where it finds fewer."""
        gpu = device_number(self.base.device)
        with faiss_library.on_gpu(gpu) as faiss:
            if k <= self.candidates or not self.candidates:
                positions: torch.Tensor = self.index.search(prepared.contiguous(), k)[1]
                return positions
            # FAISS takes parameters beside arrays alone; a search has few queries.
            parameters = faiss.SearchParametersCagra()
            parameters.itopk_size = -(-k // _CAGRA_STEP) * _CAGRA_STEP
            host = np.ascontiguousarray(fetched(prepared)[0])
            return placed(self.index.search_numpy(host, k, params=parameters)[1], self.base.device)


def check(name: str, size: int, k: int, device: str) -> None:
    """Refuse what an index on a GPU cannot do.

    Args:
        name: `ivf` or `cagra`.
        size: number of base vectors.
        k: neighbours of a query; one more is sought to measure the recall.
        device: `cpu` or `cuda:N`.

    Raises:
        Refused: FAISS has no such index or does not see the device, the base is too small, or k too large.
    """
    faiss = faiss_library.import_faiss(f"index {name!r}", "use --index exact")
    if name == "cagra" and not (hasattr(faiss, "GpuIndexCagra") and faiss.get_num_gpus()):
        raise Refused(
            "index 'cagra'",
            "It needs a GPU and a FAISS built with cuVS",
            "install faiss-gpu-cuvs on a machine with a GPU, or use --index ivf or exact",
        )
    if device == "cpu":
        if name == "cagra":
            raise Refused(
                "index 'cagra' on the CPU",
                "It is built and searched on a GPU",
                "use --device cuda, or --index ivf or exact",
            )
        return
    faiss_library.import_faiss_on_gpu(device_number(device), f"index {name!r}", "use --index exact")
    most = CAGRA_MAX_NEIGHBOURS if name == "cagra" else faiss_library.GPU_MAX_NEIGHBOURS
    sought = min(k + 1, size)
    if sought > most:
        raise Refused(
            f"k = {k} with index {name!r} on {device}",
            f"It finds {most} neighbours there at most, one of them the query in measuring the recall",
            f"lower --k to {most - 1}, or use --index exact",
        )
    if name == "cagra" and size <= _CAGRA_DEGREE:
        raise Refused(
            f"index 'cagra' over {size} images",
            f"Its graph begins with {_CAGRA_DEGREE} neighbours of each",
            "use --index exact, which is fast for so few",
        )


def build_on_gpu(
    name: str, base: Vectors, distance: Distance, device: str, lists: int, visited: int, step: int
) -> ApproximateOnGpu:
    """Build an index on a CUDA device over prepared float32 copies of the whole base: 4 bytes a number.

    Args:
        name: `ivf` or `cagra`.
        device: `cuda:N`.
        lists, visited, step: of IVF: its lists, how many of them a query visits, and one in how many vectors
            it is trained on.
    """
    import torch

    with torch.no_grad(), float32_products():
        on_device = DeviceVectors.of(device_vectors.resident(base, device), device)
        space = device_vectors.space_of(distance, on_device, on_device)
        vectors = torch.empty((len(base), base.dim), device=device)
        for start, block in on_device.blocks():
            vectors[start : start + len(block)] = prepare(space, block)[0]
        gpu = device_number(device)
        with faiss_library.on_gpu(gpu) as faiss:
            kind = faiss.GpuIndexCagraConfig if name == "cagra" else faiss.GpuIndexIVFFlatConfig
            config = kind()
            config.device = gpu
            resources = faiss_library.gpu_resources()
            # Prepared vectors of both spaces have their neighbours by squared Euclidean distance.
            if name == "cagra":
                index = faiss.GpuIndexCagra(resources, base.dim, faiss.METRIC_L2, config)
                index.train(vectors)
                return ApproximateOnGpu(index, on_device, space, {}, _CAGRA_CANDIDATES, vectors)
            index = faiss.GpuIndexIVFFlat(resources, base.dim, lists, faiss.METRIC_L2, config)
            index.train(vectors[::step].contiguous())
            index.add(vectors)
            index.nprobe = min(visited, MAX_VISITED)
    return ApproximateOnGpu(index, on_device, space, {"lists": lists, "visited": int(index.nprobe)})
