"""Approximate indices on a GPU: where FAISS builds them, what they cannot do, and the recall measured.

FAISS's own arithmetic there needs a GPU (`needs="faiss"`); the shape of the calls is tested without.
"""

import importlib
from typing import Any

import numpy as np
import pytest

from engine.errors import Refused
from engine.evals.neighbours import approximate
from engine.evals.neighbours.search import _search
from engine.kernels import faiss_library
from engine.kernels.neighbours import nearest
from engine.kernels.vectors import Vectors
from tests.faiss_on_gpu import FaissOnGpu, install
from tests.pretended.session import pretend

pytestmark = pytest.mark.skipif(
    bool(faiss_library.unavailable_reason()), reason=faiss_library.unavailable_reason() or "works"
)

X = np.random.default_rng(0).normal(0.3, 1, (1500, 12)).astype(np.float16)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    if hasattr(importlib.import_module("faiss"), "StandardGpuResources"):
        pytest.skip("FAISS with GPU support")
    faiss_library.gpu_resources.cache_clear()
    yield install(monkeypatch, count=2)
    faiss_library.gpu_resources.cache_clear()


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize(("name", "k"), [("ivf", 5), ("cagra", 5), ("cagra", 64), ("cagra", 100)])
def test_an_index_is_built_on_the_device_from_what_is_there(
    name: str, k: int, distance: str, gpu: FaissOnGpu
) -> None:
    exact = nearest(Vectors(X[:1]), Vectors(X), k, distance=distance)
    with pretend(2) as device:
        near, about = _search(Vectors(X[:1]), Vectors(X), k, distance, name, "array", "cuda:1")
        assert device.ledger.count("upload") < 25, "whatever the rows"
    assert [config.device for config in gpu.configs] == [1] and set(gpu.devices) == {(1, 1)}
    assert near.rows[0, 0] == 0 and about["recall_measured_on"] == 200
    assert (np.diff(near.distances) >= 0).all()
    if name == "cagra":  # the stand-in is exhaustive
        np.testing.assert_array_equal(near.rows, exact.rows)
        np.testing.assert_allclose(near.distances, exact.distances, rtol=0, atol=1e-12)
        assert about[f"recall_at_{k}"] == 1 and "lists" not in about
    else:
        assert 0.5 < about["recall_at_5"] < 1 and about["visited"] < about["lists"]


def test_the_recall_on_the_device_is_that_on_the_cpu(gpu: FaissOnGpu) -> None:
    """The stand-in builds the same lists, so that the same neighbours are missed."""
    on_cpu = _search(Vectors(X[:1]), Vectors(X), 5, "cosine", "ivf", "array", "cpu")[1]
    with pretend():
        assert _search(Vectors(X[:1]), Vectors(X), 5, "cosine", "ivf", "array", "cuda:0")[1] == on_cpu


@pytest.mark.parametrize(
    ("name", "size", "k", "device", "says", "remedy"),
    [
        ("cagra", 1500, 5, "cpu", "on the CPU", "--device cuda"),
        ("cagra", 1500, 1024, "cuda:0", "k = 1024", "1023"),
        ("ivf", 3000, 2048, "cuda:0", "k = 2048", "2047"),
        ("cagra", 128, 5, "cuda:0", "over 128 images", "--index exact"),
        ("ivf", 1500, 5, "cuda:2", "cuda:2", "--index exact"),
    ],
)
def test_what_it_cannot_do_is_refused(
    name: str, size: int, k: int, device: str, says: str, remedy: str, gpu: FaissOnGpu
) -> None:
    base = Vectors(np.zeros((size, 2), np.float16))
    with pretend(2), pytest.raises(Refused, match=says) as caught:
        approximate.build(name, base, "cosine", device, k)
    assert remedy in caught.value.remedy
    assert not gpu.configs, "before anything is built"


@pytest.mark.gpu(needs="faiss")
@pytest.mark.parametrize("name", ["ivf", "cagra"])
@pytest.mark.parametrize("k", [5, 100])
def test_recall_on_a_gpu(name: str, k: int) -> None:
    faiss = importlib.import_module("faiss")
    if not hasattr(faiss, "StandardGpuResources") or (
        name == "cagra" and not hasattr(faiss, "GpuIndexCagra")
    ):
        pytest.skip("FAISS without this index")
    x = np.random.default_rng(0).normal(0.3, 1, (20_000, 32)).astype(np.float16)
    _, about = _search(Vectors(x[:1]), Vectors(x), k, "cosine", name, "array", "cuda:0")
    assert about[f"recall_at_{k}"] > 0.4
