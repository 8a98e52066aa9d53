"""Neighbours against float64 brute force and scikit-learn; every backend gives the same."""

import importlib
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_distances, euclidean_distances
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from engine.errors import Refused
from engine.kernels import faiss_library, neighbours, topk, vectors
from engine.kernels.neighbours import choose_backend, nearest, temperature_weights, vote
from engine.kernels.vectors import Vectors

#: FAISS has its tests where it works; those of numpy and torch need none.
needs_faiss = pytest.mark.skipif(
    bool(faiss_library.unavailable_reason()), reason=faiss_library.unavailable_reason() or "works"
)
FAISS = pytest.param("faiss", marks=needs_faiss)
BACKENDS = ("array", FAISS)


def points(n: int, dim: int, seed: int, dtype: str = "float16") -> np.ndarray:
    """Like pooled ReLU features: not negative, not centred."""
    return np.abs(np.random.default_rng(seed).normal(1.0, 0.6, (n, dim))).astype(dtype)


def brute(
    queries: np.ndarray, base: np.ndarray, k: int, distance: str, allowed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """All distances at once in float64; order by (distance, row)."""
    q, b = queries.astype(np.float64), base.astype(np.float64)
    if distance == "cosine":
        lengths = np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(b, axis=1)
        all_distances = 1 - np.divide(q @ b.T, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    else:
        all_distances = np.sqrt(((q[:, None] - b[None]) ** 2).sum(-1))
    if allowed is not None:
        all_distances[~allowed] = np.inf
    # Sums in another order differ by 1e-16: equal vectors must still tie.
    all_distances = np.round(all_distances, 11)
    rows = np.argsort(all_distances, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(all_distances, rows, axis=1)
    return np.where(np.isfinite(found), rows, -1), found


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_equals_brute_force(backend: str, distance: str, dtype: str) -> None:
    base, queries = points(700, 48, 0, dtype), points(90, 48, 1, dtype)
    found = nearest(Vectors(queries), Vectors(base), 11, distance=distance, backend=backend)
    rows, distances = brute(queries, base, 11, distance)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.distances, distances, atol=2e-11)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("distance", "pairwise"), [("cosine", cosine_distances), ("euclidean", euclidean_distances)]
)
def test_distances_are_scikit_learns(backend: str, distance: str, pairwise: object) -> None:
    base, queries = points(60, 12, 2, "float64"), points(20, 12, 3, "float64")
    base[7] = 0  # a zero vector
    found = nearest(Vectors(queries), Vectors(base), 60, distance=distance, backend=backend)
    expected = pairwise(queries, base)
    np.testing.assert_allclose(found.distances, np.take_along_axis(expected, found.rows, 1), atol=1e-7)
    assert (np.sort(found.rows, axis=1) == np.arange(60)).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_scikit_learns_search(backend: str) -> None:
    base, queries = points(400, 16, 4, "float64"), points(50, 16, 5, "float64")
    known = NearestNeighbors(n_neighbors=9, algorithm="brute").fit(base)
    _, rows = known.kneighbors(queries)
    found = nearest(Vectors(queries), Vectors(base), 9, distance="euclidean", backend=backend)
    np.testing.assert_array_equal(found.rows, rows)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_ties_go_to_the_smaller_row(backend: str, distance: str) -> None:
    base = np.tile(points(5, 40, 6), (30, 1))  # thirty copies of each: far more ties than the margin
    found = nearest(Vectors(base[:5]), Vectors(base), 12, distance=distance, backend=backend)
    np.testing.assert_array_equal(found.rows, np.arange(5)[:, None] + 5 * np.arange(12))
    assert found.undecided == 5
    # cosine: 1 - x / sqrt(x * x), up to the rounding of x
    np.testing.assert_allclose(found.distances, 0, atol=1e-15)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_differences_below_float32_are_seen(backend: str, distance: str) -> None:
    """A thousand vectors whose distances differ in the ninth digit: float32 alone would shuffle them."""
    base = np.zeros((1000, 6))
    base[:, 0], base[:, 1] = 1.0, 0.5 + 1e-9 * np.random.default_rng(7).permutation(1000)
    base[:, 5] = np.linspace(0, 1e-12, 1000)
    query = np.array([[1.0, 0.2, 0, 0, 0, 0]])
    found = nearest(Vectors(query), Vectors(base), 20, distance=distance, backend=backend)
    np.testing.assert_array_equal(found.rows[0], np.argsort(base[:, 1])[:20])
    assert found.undecided == 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_numbers_of_any_size(backend: str, distance: str, size: float) -> None:
    base, queries = points(80, 8, 8, "float64"), points(10, 8, 9, "float64")
    plain = nearest(Vectors(queries), Vectors(base), 5, distance=distance, backend=backend)
    scaled = nearest(Vectors(queries * size), Vectors(base * size), 5, distance=distance, backend=backend)
    np.testing.assert_array_equal(scaled.rows, plain.rows)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, backend: str, distance: str) -> None:
    base, queries = points(700, 32, 10), points(300, 32, 11)
    base[400:420] = base[3]
    keys = (np.arange(300) % 40, np.arange(700) % 50)
    run = partial(nearest, Vectors(queries), Vectors(base), 7, distance=distance, keys=keys, backend=backend)
    whole = run()
    monkeypatch.setattr(vectors, "BLOCK_BYTES", 1)  # 64 rows a block
    monkeypatch.setattr(topk, "_FAISS_BLOCKS", 1)
    monkeypatch.setattr(neighbours, "_REFINE_BYTES", 1)
    monkeypatch.setattr(neighbours, "_PAIRS", 1)
    blocked = run(threads=3)
    np.testing.assert_array_equal(blocked.rows, whole.rows)
    np.testing.assert_array_equal(blocked.distances, whole.distances)


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_a_base_widened_at_once_has_the_same_distances(
    monkeypatch: pytest.MonkeyPatch, kind: str, distance: str
) -> None:
    base, queries = points(300, 33, 10, kind), points(40, 33, 11, kind)
    rows = np.random.default_rng(0).permutation(300)[:290]
    run = partial(nearest, Vectors(queries), Vectors(base, rows), 200, distance=distance, backend="array")
    at_once = run()
    monkeypatch.setattr(neighbours, "_WIDE_BYTES", 0)
    by_candidate = run(threads=2)
    np.testing.assert_array_equal(at_once.rows, by_candidate.rows)
    np.testing.assert_array_equal(at_once.distances, by_candidate.distances)


def test_few_products_are_not_worth_the_import_of_faiss() -> None:
    pytest.importorskip("faiss")
    few = neighbours._FEW_PRODUCTS - 1
    assert (choose_backend("auto", products=few), choose_backend("auto", products=few + 1)) == (
        "array",
        "faiss",
    )
    assert (choose_backend("faiss", products=1), choose_backend("array")) == ("faiss", "array")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("groups", [500, 90, 3])
def test_equal_keys_are_no_neighbours(backend: str, groups: int) -> None:
    base = points(500, 24, 12)
    key = np.random.default_rng(0).integers(0, groups, 500)
    found = nearest(Vectors(base), Vectors(base), 6, keys=(key, key), backend=backend)
    rows, _ = brute(base, base, 6, "cosine", key[:, None] != key)
    np.testing.assert_array_equal(found.rows, rows)


@pytest.mark.parametrize("backend", BACKENDS)
def test_fewer_than_k(backend: str) -> None:
    base = points(6, 8, 13)
    own = np.arange(6)
    found = nearest(Vectors(base), Vectors(base), 9, keys=(own, own), backend=backend)
    assert (found.rows[:, 5:] == -1).all()
    assert np.isinf(found.distances[:, 5:]).all()
    assert (found.rows[:, :5] >= 0).all()
    alone = nearest(Vectors(base), Vectors(base), 2, keys=(own * 0, own * 0), backend=backend)
    assert (alone.rows == -1).all()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 60),
    k=st.integers(1, 12),
    distance=st.sampled_from(["cosine", "euclidean"]),
)
def test_backends_agree_on_coarse_grids(seed: int, n: int, k: int, distance: str) -> None:
    """Small whole numbers: many ties, zeros, duplicates."""
    rng = np.random.default_rng(seed)
    base, queries = (rng.integers(-2, 3, (size, 3)).astype(np.float16) for size in (n, 15))
    array, other = (
        nearest(Vectors(queries), Vectors(base), k, distance=distance, backend=b) for b in ("array", "faiss")
    )
    np.testing.assert_array_equal(array.rows, other.rows)
    np.testing.assert_array_equal(array.distances, other.distances)
    wanted = min(k, n)
    _, distances = brute(queries, base, wanted, distance)
    np.testing.assert_allclose(array.distances[:, :wanted], distances, atol=1e-10)
    order = np.lexsort((array.rows[:, :wanted], array.distances[:, :wanted]))
    np.testing.assert_array_equal(order, np.broadcast_to(np.arange(wanted), order.shape))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), distance=st.sampled_from(["cosine", "euclidean"]))
def test_permuting_the_base_permutes_the_rows(seed: int, distance: str) -> None:
    base, queries = points(90, 10, seed), points(8, 10, seed + 1)
    order = np.random.default_rng(seed).permutation(90)
    plain = nearest(Vectors(queries), Vectors(base), 5, distance=distance, backend="array")
    moved = nearest(Vectors(queries), Vectors(base, order), 5, distance=distance, backend="array")
    np.testing.assert_array_equal(order[moved.rows], plain.rows)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_cuda_gives_the_same(backend: str, distance: str) -> None:
    if backend == "faiss" and not hasattr(importlib.import_module("faiss"), "StandardGpuResources"):
        pytest.skip("FAISS without GPU support")
    base, queries = points(5000, 256, 16), points(300, 256, 17)
    cpu = nearest(Vectors(queries), Vectors(base), 20, distance=distance, backend="array")
    cuda = nearest(Vectors(queries), Vectors(base), 20, distance=distance, backend=backend, device="cuda:0")
    np.testing.assert_array_equal(cuda.rows, cpu.rows)
    np.testing.assert_allclose(cuda.distances, cpu.distances, rtol=0, atol=1e-12)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(Refused, match="'magic'"):
        choose_backend("magic")


def _weights(d: np.ndarray) -> np.ndarray:
    return np.exp((1 - d) / 0.07)


@pytest.mark.parametrize("weights", ["uniform", "temperature"])
@pytest.mark.parametrize("k", [1, 4, 15])
def test_votes_are_scikit_learns(weights: str, k: int) -> None:
    base, queries = points(300, 8, 18, "float64"), points(80, 8, 19, "float64")
    labels = np.random.default_rng(1).integers(0, 4, 300)
    oracle = KNeighborsClassifier(
        k, algorithm="brute", metric="cosine", weights="uniform" if weights == "uniform" else _weights
    ).fit(base, labels)
    found = nearest(Vectors(queries), Vectors(base), 15)
    w = np.ones_like(found.distances)
    if weights == "temperature":
        w = temperature_weights(found.distances, 0.07)
    shares = vote(labels[found.rows], w, 4, [1, 4, 15])[k]
    np.testing.assert_allclose(shares, oracle.predict_proba(queries), atol=1e-8)
    np.testing.assert_array_equal(shares.argmax(1), oracle.predict(queries))


def test_vote_ties_and_missing_labels() -> None:
    labels = np.array([[2, 0, -1, 1], [-1, 1, 1, 0]])
    shares = vote(labels, np.ones((2, 4)), 3, [2, 4])
    assert shares[2].argmax(1).tolist() == [0, 1]
    np.testing.assert_allclose(shares[4], [[1 / 3] * 3, [1 / 3, 2 / 3, 0]])


def test_a_tiny_temperature_is_one_neighbour() -> None:
    distances = np.array([[0.1, 0.2, 0.2, np.inf]])
    shares = vote(np.array([[1, 0, 0, 0]]), temperature_weights(distances, 1e-6), 2, [4])[4]
    assert shares.tolist() == [[0.0, 1.0]]
