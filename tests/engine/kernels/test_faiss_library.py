"""FAISS absent, broken in every way its import breaks, of the CPU alone, and with a GPU's limit."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from engine import doctor
from engine.errors import Refused
from engine.evals.fewshot.evaluate import Protocol, fewshot
from engine.evals.neighbours import approximate, search
from engine.kernels import device_neighbours, faiss_library, topk, vectors
from engine.kernels.neighbours import choose_backend, nearest
from engine.kernels.vectors import Vectors
from tests.faiss_on_gpu import install
from tests.pretended.session import pretend

X = np.random.default_rng(0).normal(1.0, 0.5, (300, 8)).astype(np.float32)


@pytest.fixture
def imported_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is known of FAISS is found out again, in the test and after it."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "faiss"]:
        monkeypatch.delitem(sys.modules, name)
    caches = faiss_library.unavailable_reason, faiss_library.gpu_resources
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


#: What `import faiss` does: None where there is none; faiss-gpu raises the second without CUDA's libraries.
BREAKS = {
    "absent": None,
    "libraries": "RuntimeError('libcublas.so.12: cannot open shared object file')",
    "import": "ImportError('numpy.core.multiarray failed to import')",
    "attribute": "AttributeError('_ARRAY_API not found')",
    "system": "OSError('libgomp.so.1')",
}


@pytest.fixture(params=BREAKS)
def unusable(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, imported_anew: None
) -> str:
    """A FAISS that cannot be imported; a word of the reason."""
    error = BREAKS[request.param]
    if error is None:
        real = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "faiss" else real(n, *a))
        return "not installed"
    (tmp_path / "faiss").mkdir()
    (tmp_path / "faiss" / "__init__.py").write_text(f"raise {error}\n")
    monkeypatch.syspath_prepend(tmp_path)
    return error.partition("(")[0]


def test_auto_does_without_it(unusable: str) -> None:
    assert choose_backend("auto") == "array"
    found = nearest(Vectors(X[:20]), Vectors(X), 5)
    assert found.backend == "array"
    distances = np.linalg.norm(X[:20, None].astype(float) - X, axis=2)
    expected = nearest(Vectors(X[:20]), Vectors(X), 5, distance="euclidean").rows
    np.testing.assert_array_equal(expected, np.argsort(distances, axis=1, kind="stable")[:, :5])


def test_who_asks_for_it_is_refused_with_the_reason_and_what_to_do(unusable: str) -> None:
    labels = np.arange(len(X)) % 5
    protocol = Protocol(n_way=3, n_shot=2, n_query=3, episodes=2)
    asked: dict[str, Callable[[], object]] = {
        "array": lambda: nearest(Vectors(X[:2]), Vectors(X), 1, backend="faiss"),
        "--backend array": lambda: fewshot(X, labels, protocol, backend="faiss"),
        "--index exact": lambda: approximate.build("ivf", Vectors(X), "cosine"),
    }
    for remedy, ask in asked.items():
        with pytest.raises(Refused) as caught:
            ask()
        assert unusable in caught.value.rule and caught.value.exit_code == 2
        assert remedy in caught.value.remedy and "embank[cpu]" in caught.value.remedy
    assert fewshot(X, labels, protocol, backend="array").per_episode.size == 2, "the remedy works"
    about = search._search(Vectors(X[:1]), Vectors(X), 3, "cosine", "exact", "auto", "cpu")[1]
    assert about["backend"] == "array"


def test_the_doctor_calls_it_absent(unusable: str) -> None:
    found = doctor._faiss()
    assert found.status == "absent" and unusable in found.detail and "embank[cpu]" in found.remedy


needs_faiss = pytest.mark.skipif(
    bool(faiss_library.unavailable_reason()), reason=faiss_library.unavailable_reason() or "works"
)


@needs_faiss
def test_a_faiss_of_the_cpu_is_refused_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    faiss = importlib.import_module("faiss")
    if hasattr(faiss, "StandardGpuResources"):
        pytest.skip("FAISS with GPU support")
    with pytest.raises(Refused, match="built for the CPU alone") as caught:
        nearest(Vectors(X[:2]), Vectors(X), 1, backend="faiss", device="cuda:0")
    assert "embank[gpu]" in caught.value.remedy and "--backend array" in caught.value.remedy
    assert "CPU alone" in faiss_library.gpu_unavailable_reason(0), "auto takes torch"
    install(monkeypatch)
    with pytest.raises(Refused, match="sees 1 devices"):
        nearest(Vectors(X[:2]), Vectors(X), 1, backend="faiss", device="cuda:1")


@needs_faiss
@pytest.mark.parametrize("k", [2043, 2044, 2100])
def test_more_neighbours_than_a_gpu_finds_are_found_with_torch(
    k: int, monkeypatch: pytest.MonkeyPatch, imported_anew: None
) -> None:
    base = np.random.default_rng(1).normal(size=(3000, 4)).astype(np.float32)
    key = np.arange(3000)
    expected = nearest(Vectors(base[:6]), Vectors(base), k, keys=(key[:6], key), backend="array")
    gpu = install(monkeypatch)
    with pretend():
        found = nearest(
            Vectors(base[:6]), Vectors(base), k, keys=(key[:6], key), backend="faiss", device="cuda:0"
        )
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_allclose(found.distances, expected.distances, rtol=0, atol=1e-12)
    fits = k + 4 + 1 <= 2048
    assert bool(gpu.searches) == fits, "k, a margin, and the query itself"
    assert found.backend == ("faiss" if fits else "array")


@needs_faiss
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_faiss_searches_tensors_where_they_are(
    distance: str, monkeypatch: pytest.MonkeyPatch, imported_anew: None
) -> None:
    """On the second device, which is made current for FAISS to follow torch's stream of it."""
    key = np.arange(300) // 7
    expected = nearest(Vectors(X), Vectors(X), 9, distance=distance, keys=(key, key), backend="array")
    gpu = install(monkeypatch, count=2)
    monkeypatch.setattr(vectors, "BLOCK_BYTES", 1)
    vectors_of = Vectors(X)
    with pretend(2) as device:
        found = nearest(
            vectors_of, vectors_of, 9, distance=distance, keys=(key, key), backend="faiss", device="cuda:1"
        )
        assert device.current_device() == 0
        assert device.ledger.size("upload") <= X.nbytes + 2 * key.nbytes + 300 * 8
        assert device.ledger.count("wait") <= 3
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_allclose(found.distances, expected.distances, rtol=0, atol=1e-12)
    assert set(gpu.devices) == {(1, 1)} and set(gpu.searches) == {9 + 4 + 7}


@needs_faiss
def test_one_set_of_gpu_resources_serves_a_process(
    monkeypatch: pytest.MonkeyPatch, imported_anew: None
) -> None:
    gpu = install(monkeypatch)
    with pretend():
        for _ in range(3):
            nearest(Vectors(X[:5]), Vectors(X), 3, backend="faiss", device="cuda:0")
    assert gpu.made == 1 and len(gpu.searches) >= 3


@needs_faiss
@pytest.mark.parametrize(("worth", "slow"), [(1, "array"), (1, "faiss"), (10**6, "faiss")])
def test_auto_takes_the_faster_on_the_first_block(
    worth: int, slow: str, monkeypatch: pytest.MonkeyPatch, imported_anew: None
) -> None:
    """A clock that the test holds: it says that one of the two takes longer."""
    expected = nearest(Vectors(X[:20]), Vectors(X), 5, backend="array")
    gpu = install(monkeypatch)
    monkeypatch.setattr(device_neighbours, "WORTH_MEASURING", worth)
    monkeypatch.setattr(vectors, "BLOCK_BYTES", 1)
    runs = iter(["array", "faiss"])

    class Clock:
        def __init__(self, device: str) -> None:
            self.seconds = 2.0 if next(runs) == slow else 1.0

        def stop(self) -> None:
            pass

    monkeypatch.setattr(device_neighbours, "Span", Clock)
    with pretend():
        found = nearest(Vectors(X[:20]), Vectors(X), 5, device="cuda:0")
    assert found.backend == ("array" if worth > 1 or slow == "faiss" else "faiss")
    assert len(gpu.searches) == (0 if worth > 1 else 2 if slow == "faiss" else 2 + 5), "of 5 blocks"
    np.testing.assert_array_equal(found.rows, expected.rows)


def test_candidates_say_what_does_without_faiss(unusable: str) -> None:
    with pytest.raises(Refused, match="which gives the same answers"):
        topk.by_faiss(X[:2], Vectors(X), approximate.Space("cosine", 0.0, 1.0), 3)
