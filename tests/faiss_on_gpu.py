"""faiss-cpu under the names, argument types and limits of faiss-gpu, which runs on no CPU.

It stands for the shape of the calls alone: what is taken where, on which device, and how many neighbours.
"""

import importlib
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from engine.kernels import faiss_library


class FaissOnGpu:
    """The module.

    Attributes:
        made: sets of resources made.
        searches: neighbours sought in each exact search.
        devices: number of the device of each call, and the one that was current.
        configs: of the indices made.
    """

    def __init__(self, real: Any, count: int = 1) -> None:
        self.real, self.count, self.made = real, count, 0
        self.searches: list[int] = []
        self.devices: list[tuple[int, int]] = []
        self.configs: list[Any] = []
        self.GpuIndexIVFFlatConfig = self.GpuIndexCagraConfig = SimpleNamespace
        self.SearchParametersCagra = SimpleNamespace

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def StandardGpuResources(self) -> object:
        self.made += 1
        return object()

    def get_num_gpus(self) -> int:
        return self.count

    def knn_gpu(self, resources: object, queries: Any, base: Any, k: int, *, metric: int, device: int) -> Any:
        """As `faiss.contrib.torch_utils` makes it: tensors in, tensors out."""
        _within_limit(k)
        self._here(device, queries, base)
        self.searches.append(k)
        values, rows = self.real.knn(queries.numbers.numpy(), base.numbers.numpy(), k, metric=metric)
        return _there(values, queries), _there(rows, queries)

    def GpuIndexIVFFlat(self, resources: object, dim: int, lists: int, metric: int, config: Any) -> Any:
        self.configs.append(config)
        return _Index(self, self.real.IndexIVFFlat(self.real.IndexFlatL2(dim), dim, lists), config.device)

    def GpuIndexCagra(self, resources: object, dim: int, metric: int, config: Any) -> Any:
        self.configs.append(config)
        return _Index(self, self.real.IndexFlatL2(dim), config.device)

    def _here(self, device: int, *tensors: Any) -> None:
        for tensor in tensors:
            assert tensor.device == torch.device("cuda", device) and tensor.dtype == torch.float32
            assert tensor.is_contiguous()
        self.devices.append((device, torch.cuda.current_device()))


class _Index:
    """An index on a GPU, as `faiss.contrib.torch_utils` makes it."""

    def __init__(self, faiss: FaissOnGpu, real: Any, device: int) -> None:
        self.faiss, self.real, self.device, self.nprobe = faiss, real, device, 1

    def train(self, vectors: Any) -> None:
        self.faiss._here(self.device, vectors)
        self.real.train(vectors.numbers.numpy())
        if not hasattr(self.real, "nprobe"):  # CAGRA takes the vectors in training
            self.real.add(vectors.numbers.numpy())

    def add(self, vectors: Any) -> None:
        self.faiss._here(self.device, vectors)
        self.real.add(vectors.numbers.numpy())

    def search(self, queries: Any, k: int) -> Any:
        _within_limit(k)
        self.faiss._here(self.device, queries)
        if hasattr(self.real, "nprobe"):
            self.real.nprobe = self.nprobe
        else:
            assert k <= 64, "CAGRA: topk must be at most itopk_size"
        values, rows = self.real.search(queries.numbers.numpy(), k)
        return _there(values, queries), _there(rows, queries)

    def search_numpy(self, queries: np.ndarray, k: int, *, params: Any) -> Any:
        assert k <= params.itopk_size and params.itopk_size % 32 == 0
        return self.real.search(queries, k)


def _within_limit(k: int) -> None:
    if k > 2048:
        raise RuntimeError("'k <= getMaxKSelection(useCuvs)' failed: GPU index only supports k <= 2048")


def _there(values: np.ndarray, like: Any) -> Any:
    """What a library leaves on the device: torch has no part in it, and there is no upload."""
    made = torch.empty(values.shape, dtype=torch.from_numpy(values).dtype, device=like.device)
    made.numbers.copy_(torch.from_numpy(values))
    return made


def install(monkeypatch: pytest.MonkeyPatch, count: int = 1) -> FaissOnGpu:
    """Put it in FAISS's place; the caller sees to what is cached."""
    faiss = FaissOnGpu(importlib.import_module("faiss"), count)
    monkeypatch.setitem(sys.modules, "faiss", faiss)
    monkeypatch.setitem(sys.modules, "faiss.contrib.torch_utils", ModuleType("torch_utils"))
    monkeypatch.setattr(faiss_library, "unavailable_reason", lambda: "")
    return faiss
