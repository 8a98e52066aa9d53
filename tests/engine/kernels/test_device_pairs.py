"""Similar pairs and equal vectors found on a device are the CPU's, whatever the blocks."""

import numpy as np
import pytest
import torch

from engine.errors import MachineFault
from engine.kernels import device_pairs, device_vectors, vectors
from engine.kernels.near_duplicates import PairCounts, Pairs, identical_groups, similar_pairs
from engine.kernels.vectors import Vectors


def planted(dtype: str) -> np.ndarray:
    """Features with copies, and with near-copies of graded distance."""
    rng = np.random.default_rng(0)
    x = np.abs(rng.normal(1, 0.8, (260, 24)))
    x[130:150] = x[:20]
    x[150:170] = x[20:40] + rng.normal(0, 0.05, (20, 24)) * np.arange(20)[:, None] / 10
    x[200], x[7] = x[10], 0
    x[200, 0] *= 1.0002  # float32 products cannot tell the two
    return x.astype(dtype)


def pairs_of(x: np.ndarray, threshold: float, limit: int, device: str) -> tuple[Pairs, PairCounts]:
    rng = np.random.default_rng(1)
    tally = PairCounts({"label": rng.integers(-1, 3, len(x)), "split": rng.integers(-1, 2, len(x))}, len(x))
    return similar_pairs(Vectors(x), threshold, limit=limit, tally=tally, device=device), tally


@pytest.mark.gpu
@pytest.mark.parametrize(("threshold", "fits"), [(0.95, True), (1.0, True), (0.95, False)])
def test_the_same_as_on_the_cpu(monkeypatch: pytest.MonkeyPatch, threshold: float, fits: bool) -> None:
    x = planted("float32" if fits else "float16")
    expected, counted = pairs_of(x, threshold, 10**6, "cpu")
    assert len(expected) >= 20
    monkeypatch.setattr(vectors, "BLOCK_BYTES", 1)
    monkeypatch.setattr(device_vectors, "SHARE", 2 if fits else 1 << 60)
    monkeypatch.setattr(device_pairs, "PAIRS", 900)
    found, tally = pairs_of(x, threshold, 10**6, "cuda:0")
    np.testing.assert_array_equal([found.first, found.second], [expected.first, expected.second])
    np.testing.assert_allclose(found.similarity, expected.similarity, rtol=0, atol=1e-12)
    assert (tally.total, tally.counts) == (counted.total, counted.counts)
    np.testing.assert_array_equal(tally.touched, counted.touched)
    few, tally = pairs_of(x, threshold, 5, "cuda:0")
    np.testing.assert_allclose(few.similarity, expected.similarity[:5], atol=1e-6)
    assert tally.total == counted.total


@pytest.mark.gpu
def test_no_pairs() -> None:
    found, tally = pairs_of(np.eye(30, dtype=np.float16), 0.5, 10, "cuda:0")
    assert (len(found), tally.total, tally.touched.any()) == (0, 0, False)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_identical_embeddings(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    monkeypatch.setattr(vectors, "BLOCK_BYTES", 1)
    x = planted(dtype)
    x[250] = x[3]
    x[251] = x[3]
    x[251, 0] = np.nextafter(x[3, 0], np.dtype(dtype).type(9))
    x[252], x[253] = 0, 0
    x[253, 1] = -0.0  # other bytes
    expected = [group.tolist() for group in identical_groups(Vectors(x))]
    assert [3, 133, 250] in expected and [7, 252] in expected
    for array in (x, torch.from_numpy(x).to("cuda:0")):
        assert [group.tolist() for group in identical_groups(Vectors(array), "cuda:0")] == expected


@pytest.mark.gpu
def test_products_that_differ_from_pass_to_pass_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = device_pairs._counted
    monkeypatch.setattr(device_pairs, "_counted", lambda *args: counted(*args) + 1)
    with pytest.raises(MachineFault, match="differ") as caught:
        pairs_of(planted("float16"), 0.9, 10, "cuda:0")
    assert "--device cpu" in caught.value.remedy
