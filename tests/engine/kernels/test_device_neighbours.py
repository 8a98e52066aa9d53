"""Neighbours found on a device are the CPU's, in the same order; the float64 part knows no positions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels import device_neighbours, device_vectors, vectors
from engine.kernels.device_vectors import pair_distances, resident, squares_of
from engine.kernels.neighbours import MARGIN, nearest
from engine.kernels.vectors import Vectors, exact_distances

DISTANCES = ("cosine", "euclidean")


def features(n: int, dim: int, seed: int, dtype: str = "float16") -> np.ndarray:
    """Like pooled ReLU features, with many copies, a zero vector, and graded near-copies."""
    rng = np.random.default_rng(seed)
    x = np.abs(rng.normal(1.0, 0.6, (n, dim)))
    x[n // 2 : n // 2 + 30] = x[2]
    x[7] = 0
    x[n - 20 :] = x[3]
    x[n - 20 :, 0] += 1e-3 * np.arange(20)
    return x.astype(dtype)


def same(queries: Vectors, base: Vectors, k: int, device: str, **more: object) -> int:
    """Compare with the CPU; the number of undecided queries."""
    cpu = nearest(queries, queries if base is queries else base, k, backend="array", **more)
    found = nearest(queries, base, k, backend="array", device=device, **more)
    np.testing.assert_array_equal(found.rows, cpu.rows)
    np.testing.assert_allclose(found.distances, cpu.distances, rtol=0, atol=1e-12)
    assert found.backend == "array"
    return found.undecided


@pytest.mark.gpu
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(
    ("dtype", "fits"),
    [("float16", True), ("float32", True), ("float64", True), ("float16", False)],
)
def test_the_same_as_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, distance: str, dtype: str, fits: bool
) -> None:
    """In one block and in many, for queries together and a few at a time, resident and uploaded in blocks."""
    base, queries = features(150, 33, 0, dtype), features(70, 33, 1, dtype)
    queries[5] = base[2]
    keys = np.arange(70) % 9, np.arange(150) % 30
    monkeypatch.setattr(device_vectors, "SHARE", 2 if fits else 1 << 60)
    for few in (False, True):
        if few:
            monkeypatch.setattr(vectors, "BLOCK_BYTES", 1)
            monkeypatch.setattr(device_neighbours, "QUERY_ROWS", 23)
            monkeypatch.setattr(device_neighbours._Search, "_room", lambda *_: 40)
            monkeypatch.setattr(device_vectors, "REFINE_BYTES", 1 << 18)
        for key in (None, keys):
            assert same(Vectors(queries), Vectors(base), 9, "cuda:0", distance=distance, keys=key) > 0
    own = np.arange(150) // 3
    alone = Vectors(base, np.arange(150)[::-1])
    same(alone, alone, 4, "cuda:0", distance=distance, keys=(own, own))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_tensors_stay_where_they_are(dtype: torch.dtype) -> None:
    x = torch.from_numpy(features(200, 24, 2, "float32")).to(dtype)
    rows = np.flatnonzero(np.arange(200) % 3)
    expected = nearest(Vectors(x[:20].float().numpy()), Vectors(x.float().numpy(), rows), 6, backend="array")
    for tensor in (x, x.to("cuda:0")):
        found = nearest(Vectors(tensor[:20]), Vectors(tensor, rows), 6, device="cuda:0")
        np.testing.assert_array_equal(found.rows, expected.rows)
        on_cpu = nearest(Vectors(tensor[:20]), Vectors(tensor, rows), 6)
        np.testing.assert_array_equal(on_cpu.rows, expected.rows)
    assert resident(Vectors(x.to("cuda:0"), rows), "cuda:0").array.device == torch.device("cuda:0")


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 60),
    k=st.integers(1, 12),
    distance=st.sampled_from(DISTANCES),
    groups=st.integers(1, 40),
)
def test_coarse_grids(seed: int, n: int, k: int, distance: str, groups: int) -> None:
    """Small whole numbers: many ties, zeros, duplicates; fewer than k, or none, that are allowed."""
    rng = np.random.default_rng(seed)
    base, queries = (Vectors(rng.integers(-2, 3, (size, 3)).astype(np.float16)) for size in (n, 15))
    keys = rng.integers(0, groups, 15), rng.integers(0, groups, n)
    k = min(k, n)
    cpu = nearest(queries, base, k, distance=distance, keys=keys, backend="array")
    found = device_neighbours.search(
        queries, base, k, distance=distance, keys=keys, backend="array", device="cpu", margin=MARGIN
    )
    np.testing.assert_array_equal(found.rows, cpu.rows)
    np.testing.assert_allclose(found.distances, cpu.distances, rtol=0, atol=1e-12)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_numbers_of_any_size(distance: str, size: float) -> None:
    base, queries = features(80, 8, 3, "float64"), features(70, 8, 4, "float64")
    more = {"distance": distance, "keys": None, "backend": "array", "device": "cpu", "margin": MARGIN}
    plain = nearest(Vectors(queries), Vectors(base), 5, distance=distance, backend="array")
    scaled = device_neighbours.search(Vectors(queries * size), Vectors(base * size), 5, **more)
    apart = np.diff(plain.distances, axis=1).min(axis=1) > 1e-9  # scaling rounds
    assert apart.sum() > 20
    np.testing.assert_array_equal(scaled.rows[apart], plain.rows[apart])


@pytest.mark.gpu
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("dim", [1, 7, 100, 513])
def test_equal_vectors_are_at_equal_distances_wherever_they_are(distance: str, dim: int) -> None:
    """Bit by bit, in whatever number and order, and as numpy has it in float64."""
    rng = np.random.default_rng(dim)
    left, right = rng.normal(size=(2, dim)).astype(np.float32)
    expected = exact_distances(left[None].astype(float), right[None, None].astype(float), distance)[0, 0]
    seen = set()
    for count, at in ((1, 0), (3, 1), (1000, 999), (1000, 501)):
        others = rng.normal(size=(2, count, dim)).astype(np.float32)
        others[0, at], others[1, at] = left, right
        a, b = (torch.from_numpy(side).to("cuda:0") for side in others)
        seen.add(float(pair_distances(a, b, squares_of(a), squares_of(b), distance)[at].cpu()))
    assert len(seen) == 1 and seen.pop() == pytest.approx(expected, abs=1e-12)
