"""Episodes drawn by torch: numpy's own random numbers, and the rows that the CPU's sampler draws."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import Refused
from engine.kernels import device_episodes
from engine.kernels.device_episodes import DeviceSampler
from engine.kernels.episodes import Identity, Sampler, Stream, without_replacement
from engine.kernels.philox import Span, random_raw, uniform


@settings(max_examples=60, deadline=None)
@given(key=st.integers(0, 2**128 - 1), start=st.integers(0, 70), count=st.integers(1, 70))
def test_the_numbers_are_numpys(key: int, start: int, count: int) -> None:
    spans = [Span(key, start, count), Span(key // 3, 0, 5)]
    for span, raw, number in zip(spans, random_raw(spans, "cpu"), uniform(spans, "cpu"), strict=True):
        end = span.start + span.count
        truth = np.random.Philox(key=span.key).random_raw(end)[span.start :]
        assert raw.numpy().astype(np.uint64).tolist() == truth.tolist()
        stream = Stream(span.key.to_bytes(16, "little"))
        assert number.tolist() == stream.uniform(end)[span.start :].tolist()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), n=st.integers(1, 12), room=st.integers(0, 5), at_once=st.integers(1, 40)
)
def test_draws_without_replacement_are_the_shuffles(seed: int, n: int, room: int, at_once: int) -> None:
    rng = np.random.default_rng(seed)
    numbers, sizes = rng.random((30, n)), n + rng.integers(0, room + 1, 30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_episodes, "_PAIRS", at_once * n * n)
        found = device_episodes.without_replacement(torch.from_numpy(numbers), torch.from_numpy(sizes))
    assert found.tolist() == without_replacement(numbers, sizes).tolist()


def _pools(rng: np.random.Generator, classes: int, rows: int) -> list[np.ndarray]:
    labels = rng.integers(0, classes, rows)
    return [np.flatnonzero(labels == c) for c in range(classes)]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("patients", [None, 150, 20])
def test_the_episodes_are_the_cpus(patients: int | None, device: str) -> None:
    """Twenty patients are so few that some supports leave too few queries, and are drawn again."""
    rng = np.random.default_rng(3)
    pools = _pools(rng, 6, 300)
    groups = None if patients is None else rng.integers(-1, patients, 300)
    for ways, shots, queries in ((5, 5, 8), (2, 1, 3), (6, 3, 10)):
        identity = Identity(7, "data", ways, shots, queries)
        here, there = Sampler(pools, identity, groups), DeviceSampler(pools, identity, groups, device)
        for count in (13, 1, 20):
            truth, found = here.draw(count), there.draw(count)
            for name in ("classes", "support", "query"):
                assert np.array_equal(getattr(found, name).cpu().numpy(), getattr(truth, name)), name


def test_numbers_of_patients_may_be_large() -> None:
    rng = np.random.default_rng(4)
    pools, groups = _pools(rng, 3, 120), rng.integers(-1, 40, 120)
    identity, large = Identity(0, "", 2, 2, 5), np.where(groups < 0, -5, 2**62 + 10**9 * groups)
    truth = Sampler(pools, identity, groups).draw(9)
    for found in (
        Sampler(pools, identity, large).draw(9),
        DeviceSampler(pools, identity, large, "cpu").draw(9),
    ):
        assert np.array_equal(np.asarray(found.query), truth.query)


def test_large_patients_are_left_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_episodes, "_LISTED", 1)
    rng = np.random.default_rng(0)
    pools, groups = _pools(rng, 3, 120), rng.integers(0, 40, 120)
    identity = Identity(0, "", 2, 2, 5)
    truth, found = (
        Sampler(pools, identity, groups).draw(9),
        DeviceSampler(pools, identity, groups, "cpu").draw(9),
    )
    assert np.array_equal(found.query.numpy(), truth.query)


def test_patients_that_leave_too_few_are_refused_alike() -> None:
    pools, groups = [np.arange(0, 10), np.arange(10, 20)], np.zeros(20, int)
    identity = Identity(0, "", 2, 1, 3)
    with pytest.raises(Refused) as here:
        Sampler(pools, identity, groups).draw(4)
    with pytest.raises(Refused) as there:
        DeviceSampler(pools, identity, groups, "cpu").draw(4)
    assert str(there.value) == str(here.value)
