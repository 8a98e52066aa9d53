"""Similar pairs against all pairs at once in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels import vectors
from engine.kernels.near_duplicates import Tally, identical, similar_pairs
from engine.kernels.vectors import Vectors


def planted(n: int = 400, dim: int = 24, seed: int = 0, dtype: str = "float16") -> np.ndarray:
    """Features with copies, and with near-copies of graded distance."""
    rng = np.random.default_rng(seed)
    x = np.abs(rng.normal(1, 0.8, (n, dim)))
    x[n // 2 : n // 2 + 20] = x[:20]
    x[n // 2 + 20 : n // 2 + 40] = x[20:40] + rng.normal(0, 0.05, (20, dim)) * np.arange(20)[:, None] / 10
    return x.astype(dtype)


def all_pairs(x: np.ndarray, threshold: float) -> dict[tuple[int, int], float]:
    x = x.astype(np.float64)
    length = np.linalg.norm(x, axis=1)
    length[length == 0] = 1
    cosine = (x @ x.T) / np.outer(length, length)
    i, j = np.nonzero(np.triu(cosine >= threshold - 1e-12, 1))
    return {(a, b): cosine[a, b] for a, b in zip(i.tolist(), j.tolist(), strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("threshold", [0.8, 0.95, 0.999, 1.0])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_equal_to_all_pairs_at_once(
    monkeypatch: pytest.MonkeyPatch, threshold: float, dtype: str, device: str
) -> None:
    monkeypatch.setattr(vectors, "BLOCK_BYTES", 1)
    x = planted(dtype=dtype)
    x[7] = 0
    expected = all_pairs(x, threshold)
    found = similar_pairs(Vectors(x), threshold, limit=10**6, device=device)
    pairs = list(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert set(pairs) == set(expected)
    np.testing.assert_allclose(found.similarity, [expected[pair] for pair in pairs], atol=1e-12)
    assert (np.diff(found.similarity) <= 0).all()
    assert len(found) >= 20


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), threshold=st.floats(0.05, 1.0))
def test_limit_cuts_and_the_tally_still_counts_all(seed: int, threshold: float) -> None:
    x = planted(150, 6, seed)
    rng = np.random.default_rng(seed)
    codes = rng.integers(-1, 3, 150)
    expected = all_pairs(x, threshold)
    tally = Tally({"split": codes}, 150)
    found = similar_pairs(Vectors(x), threshold, limit=5, tally=tally)
    assert tally.total == len(expected)
    kept = sorted(expected.values(), reverse=True)[:5]
    np.testing.assert_allclose(found.similarity, kept, atol=1e-6)
    a, b = (codes[[pair[side] for pair in expected]] for side in (0, 1))
    known = (a >= 0) & (b >= 0)
    assert tally.counts["split"] == {
        "same": int((known & (a == b)).sum()),
        "different": int((known & (a != b)).sum()),
        "unknown": int((~known).sum()),
    }
    assert set(np.flatnonzero(tally.touched)) == {row for pair in expected for row in pair}


def test_identical_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "BLOCK_BYTES", 1)
    x = planted(200)
    x[150] = x[3]
    x[151] = x[3]
    x[151, 0] = np.nextafter(x[3, 0], np.float16(9))
    groups = {tuple(group.tolist()) for group in identical(Vectors(x))}
    expected = {(i, 100 + i) for i in range(21)} - {(3, 103)} | {(3, 103, 150)}
    assert groups == expected
    chosen = Vectors(x, np.array([150, 3, 60]))
    assert [group.tolist() for group in identical(chosen)] == [[0, 1]]
