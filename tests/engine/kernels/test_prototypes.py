"""Nearest prototypes: equal to the plain float64 loop, whatever the kind, order or scale of the features."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels import prototypes
from engine.kernels.episodes import Episodes, Identity, Sampler
from engine.kernels.float16 import SCALE, finite_rows, widen
from engine.kernels.prototypes import DISTANCES, in_threads, predict, predict_by_faiss, predict_on_device
from tests.oracles.fewshot_loop import loop


def _case(
    n: int = 400, d: int = 24, classes: int = 6, shape: tuple[int, int, int] = (4, 5, 3), episodes: int = 40
) -> tuple[np.ndarray, Episodes]:
    generator = np.random.default_rng(1)
    labels = np.arange(n) % classes
    centres = generator.normal(size=(classes, d))
    features = (centres[labels] + 2.0 * generator.normal(size=(n, d))).astype(np.float32)
    pools = [np.flatnonzero(labels == c) for c in range(classes)]
    return features, Sampler(pools, Identity(0, "", *shape)).draw(episodes)


def _same(found: np.ndarray, expected: np.ndarray, but: int = 0) -> None:
    assert (found != expected).sum() <= but


def test_all_halves_widen_exactly() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    wide = np.empty(finite.shape, np.float32)
    widen(finite, wide)
    wide *= SCALE
    np.testing.assert_array_equal(wide.view(np.int32), finite.astype(np.float32).view(np.int32))  # and -0


@pytest.mark.parametrize("kind", [np.float16, np.float32, ">f2"])
def test_rows_with_nan_or_infinity_are_found(kind: str) -> None:
    rows = np.random.default_rng(0).normal(size=(1100, 7)).astype(kind)
    rows[3, 6], rows[700, 0], rows[1099, 2] = np.nan, np.inf, -np.inf
    rows[5] = 65504
    assert np.flatnonzero(~finite_rows(rows)).tolist() == [3, 700, 1099]


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("kind", ["f2", "f4", "f8", ">f2", ">f4"])
def test_each_kind_of_features_equals_the_loop(distance: str, kind: str) -> None:
    features, e = _case()
    features = features.astype(kind)
    expected = loop(features, e.support, e.query, distance)
    assert 0.3 < (expected == np.arange(4)[:, None]).mean() < 0.99
    _same(predict(features, e.support, e.query, distance, threads=2), expected)


@pytest.mark.slow
@pytest.mark.parametrize("distance", DISTANCES)
def test_600_episodes_equal_the_loop_up_to_one_query(distance: str) -> None:
    features, e = _case(n=900, d=512, shape=(5, 4, 3), episodes=600)
    half = (np.maximum(features, 0) * 0.4).astype(np.float16)
    expected = loop(half, e.support, e.query, distance)
    _same(predict(half, e.support, e.query, distance, threads=3), expected, but=1)


@pytest.mark.parametrize("distance", DISTANCES)
def test_small_blocks_change_nothing(distance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    features, e = _case(shape=(3, 9, 20), episodes=20)
    half = features.astype(np.float16)
    expected = predict(half.astype(np.float32), e.support, e.query, distance)
    for block in (1 << 20, 10 * 24 * 4, 4 * 24 * 4, 1):
        monkeypatch.setattr(prototypes, "BLOCK_BYTES", block)
        _same(predict(half, e.support, e.query, distance), expected)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("scale", [65504.0, 2.0**-20])
def test_the_largest_and_subnormal_halves(distance: str, scale: float) -> None:
    features, e = _case()
    half = (features / np.abs(features).max() * scale).astype(np.float16)
    expected = loop(half, e.support, e.query, distance)
    _same(predict(half, e.support, e.query, distance), expected)


def test_strided_and_read_only_features() -> None:
    features, e = _case()
    expected = predict(features, e.support, e.query)
    wide = np.zeros((len(features), 2 * features.shape[1]), np.float32)
    wide[:, ::2] = features
    wide.flags.writeable = False
    np.testing.assert_array_equal(predict(wide[:, ::2], e.support, e.query), expected)


@pytest.mark.slow
@pytest.mark.parametrize("distance", DISTANCES)
def test_faiss_and_torch_answer_alike(distance: str) -> None:
    torch = pytest.importorskip("torch")
    features, e = _case()
    expected = loop(features, e.support, e.query, distance)
    _same(predict_on_device(torch.from_numpy(features), e.support, e.query, distance), expected)
    pytest.importorskip("faiss")
    _same(predict_by_faiss(features, e.support, e.query, distance), expected)


@pytest.mark.parametrize("distance", DISTANCES)
def test_faiss_searches_on_the_gpu(distance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays go into FAISS's search on that device; its arithmetic is that of the CPU here."""
    faiss = pytest.importorskip("faiss")
    calls = []

    def knn_gpu(resources: str, xq: np.ndarray, xb: np.ndarray, k: int, *, metric: int, device: int) -> tuple:
        assert all(x.dtype == np.float32 and x.flags.c_contiguous for x in (xq, xb))
        calls.append((resources, device))
        return faiss.knn(xq, xb, k, metric=metric)

    monkeypatch.setattr(faiss, "knn_gpu", knn_gpu, raising=False)
    monkeypatch.setattr(prototypes.faiss_library, "import_faiss_on_gpu", lambda gpu, *_: faiss)
    monkeypatch.setattr(prototypes.faiss_library, "gpu_resources", lambda: "resources")
    features, e = _case(episodes=10)
    found = predict_by_faiss(features, e.support, e.query, distance, gpu=1)
    _same(found, loop(features, e.support, e.query, distance))
    assert calls == [("resources", 1)] * 10


@pytest.mark.gpu(needs="faiss")
@pytest.mark.parametrize("distance", DISTANCES)
def test_faiss_on_a_gpu_answers_alike(distance: str) -> None:
    import torch

    if not hasattr(pytest.importorskip("faiss"), "StandardGpuResources"):
        pytest.skip("FAISS is built for the CPU alone")
    features, e = _case(n=900, d=512, shape=(5, 20, 15), episodes=60)
    on_device = predict_on_device(torch.tensor(features, device="cuda:0"), e.support, e.query, distance)
    _same(predict_by_faiss(features, e.support, e.query, distance, gpu=0), on_device, but=1)


def test_torch_in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    features, e = _case()
    monkeypatch.setattr(prototypes, "DEVICE_BYTES", 7 * 32 * 24 * 4)
    found = predict_on_device(torch.from_numpy(features).half(), e.support, e.query)
    np.testing.assert_array_equal(found, predict(features.astype(np.float16), e.support, e.query))


@pytest.mark.slow
@pytest.mark.gpu
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_cuda_equals_the_cpu(distance: str, kind: type) -> None:
    import torch

    features, e = _case(n=900, d=512, shape=(5, 20, 15), episodes=600)
    features = features.astype(kind)
    on_device = predict_on_device(torch.tensor(features, device="cuda"), e.support, e.query, distance)
    _same(on_device, predict(features, e.support, e.query, distance), but=1)


def test_sklearn_nearest_centroid_agrees() -> None:
    from sklearn.neighbors import NearestCentroid

    features, e = _case(episodes=10)
    found = predict(features, e.support, e.query)
    for i in range(len(e)):
        model = NearestCentroid().fit(
            features[e.support[i]].reshape(20, -1).astype(np.float64), np.repeat(np.arange(4), 5)
        )
        expected = model.predict(features[e.query[i]].reshape(12, -1).astype(np.float64))
        np.testing.assert_array_equal(found[i].ravel(), expected)


def test_ties_go_to_the_first_class() -> None:
    features = np.eye(12, dtype=np.float32)
    support, query = np.array([[[0], [1], [2]]]), np.array([[[5, 6], [7, 8], [9, 10]]])
    for distance in ("sqeuclidean", "cosine"):
        assert not predict(features, support, query, distance).any()
    torch = pytest.importorskip("torch")
    assert not predict_on_device(torch.from_numpy(features), support, query).any()


@pytest.mark.parametrize("distance", DISTANCES)
def test_zero_and_duplicated_features_are_no_trouble(distance: str) -> None:
    features = np.zeros((30, 8), np.float16)
    features[20:] = 3.0
    support, query = np.arange(8).reshape(1, 2, 4), np.arange(10, 30).reshape(1, 2, 10)
    assert not predict(features, support, query, distance).any()  # equal prototypes: the first


@pytest.mark.parametrize("distance", ["sqeuclidean", "centred"])
def test_features_far_from_the_origin_keep_their_digits(distance: str) -> None:
    features, e = _case()
    far = np.float32(np.round(features * 64) / 64 + 4096)  # both exact in float32
    expected = loop(far, e.support, e.query, distance)
    _same(predict(far, e.support, e.query, distance), expected, but=1)


@given(st.integers(0, 2**31), st.sampled_from(DISTANCES))
@settings(max_examples=30, deadline=None)
def test_order_of_rows_classes_and_columns_does_not_matter(seed: int, distance: str) -> None:
    features, e = _case(n=120, episodes=6)
    generator = np.random.default_rng(seed)
    expected = predict(features, e.support, e.query, distance)
    rows, columns, ways = (generator.permutation(n) for n in (120, 24, 4))
    where = np.argsort(rows)
    moved = predict(features[rows][:, columns], where[e.support], where[e.query], distance)
    np.testing.assert_array_equal(moved, expected)
    relabelled = predict(features, e.support[:, ways], e.query[:, ways], distance)
    np.testing.assert_array_equal(ways[relabelled], expected[:, ways])


@given(st.integers(-8, 3), st.sampled_from(DISTANCES))
@settings(max_examples=30, deadline=None)
def test_scale_does_not_matter(power: int, distance: str) -> None:
    features, e = _case(n=120, episodes=6)
    half = features.astype(np.float16).astype(np.float32)
    expected = predict(half, e.support, e.query, distance)
    np.testing.assert_array_equal(predict(half * 2.0**power, e.support, e.query, distance), expected)


def test_an_error_in_a_thread_reaches_the_caller() -> None:
    def fail() -> None:
        raise ValueError("in a thread")

    with pytest.raises(ValueError, match="in a thread"):
        in_threads(fail, 3)


def test_memory_does_not_grow_with_episodes(tmp_path: Path) -> None:
    """Beyond the episodes' rows and answers, the kernel holds blocks."""
    import tracemalloc

    features, _ = _case(n=400, d=256)
    pools = [np.arange(c, 400, 6) for c in range(6)]
    peaks = []
    for episodes in (1000, 4000):
        e = Sampler(pools, Identity(0, "", 4, 5, 3)).draw(episodes)
        tracemalloc.start()
        predict(features, e.support, e.query)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 3000 * 4 * 3 * 8  # answers in int16, not gathered rows (98 MB)
