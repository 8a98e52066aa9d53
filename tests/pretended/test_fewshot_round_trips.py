"""What a few-shot run makes the host wait for: no more for more episodes, images, dimensions or models.

The bound: one wait for the drawn rows of each block of episodes and, where patients are kept apart, a second
one; one for all counts, and one for the upload of each model's features. A block has 4,000,000 drawn rows.
"""

import weakref
from collections import Counter
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from engine.evals.common.compute import Compute
from engine.evals.common.features import Features
from engine.evals.fewshot import device_run, run
from engine.evals.fewshot.device_run import DeviceTally
from engine.evals.fewshot.evaluate import Options, Protocol, evaluate, evaluate_together
from engine.kernels.device_episodes import DeviceSampler
from engine.kernels.episodes import Identity
from engine.kernels.philox import Span, random_raw
from engine.kernels.prototypes import classify_on_device
from engine.runtime import HostCopy
from tests.pretended.streams import Device

PLACE = "cuda:0"


def _features(rows: int = 200, dim: int = 6, seed: int = 0, patients: int | None = None) -> Features:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, rows)
    matrix = (rng.normal(size=(rows, dim)) + 0.3 * labels[:, None]).astype(np.float16)
    groups = None if patients is None else np.random.default_rng(1).integers(0, patients, rows)
    return Features.from_arrays(matrix, np.random.default_rng(0).integers(0, 5, rows), groups=groups)


def _options(episodes: int, distance: str = "sqeuclidean") -> Options:
    return Options.of(Protocol(n_shot=3, n_query=5, episodes=episodes, distance=distance))


def _done(features: Features, episodes: int, device: Device) -> tuple[int, int, int]:
    before = len(device.ledger.entries)
    evaluate(features, _options(episodes), Compute(PLACE))
    entries = device.ledger.entries[before:]
    assert all(entry.pinned for entry in entries if entry.kind != "wait")
    kinds = Counter(entry.kind for entry in entries)
    return kinds["wait"], kinds["upload"], kinds["download"]


@pytest.mark.parametrize("patients", [None, 120])
def test_round_trips_do_not_grow(patients: int | None, device: Device) -> None:
    few, many = (_done(_features(patients=patients), n, device) for n in (10, 200))
    more = _done(_features(rows=900, dim=40, patients=patients), 10, device)
    assert few == many == more
    assert few[0] <= (3 if patients is None else 4) and few[1] <= 10 and few[2] <= 7


@pytest.mark.parametrize("patients", [None, 120])
@pytest.mark.parametrize("distance", ["sqeuclidean", "cosine", "centred"])
def test_results_are_the_cpus(distance: str, patients: int | None, device: Device) -> None:
    several = [_features(seed=seed, patients=patients) for seed in (0, 2)]
    options = _options(30, distance)
    here = evaluate_together(several, options, [Compute()] * 2)
    there = evaluate_together(several, options, [Compute(PLACE)] * 2)
    for found, truth in zip(there, here, strict=True):
        assert found.episodes_digest == truth.episodes_digest
        assert np.abs(found.per_episode - truth.per_episode).sum() * 25 <= 1 + 1e-6
        assert found.images is not None and truth.images is not None
        assert np.array_equal(np.asarray(found.images.columns["queries"]), truth.images.columns["queries"])
        assert np.abs(np.asarray(found.confusion) - np.asarray(truth.confusion)).sum() <= 2


class _Counted(HostCopy):
    """Counts the copies whose page-locked memory is held."""

    held: ClassVar[weakref.WeakSet[HostCopy]] = weakref.WeakSet()
    most = 0

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        assert self.host.is_pinned()
        self.held.add(self)
        _Counted.most = max(_Counted.most, len(self.held))


def test_the_rows_of_two_blocks_are_page_locked_at_most(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_run, "HostCopy", _Counted)
    for module in (run, device_run):
        monkeypatch.setattr(module, "BLOCK_ROWS", 5 * 8 * 3)  # three episodes
    before = len(device.ledger.entries)
    there = evaluate(_features(), _options(20), Compute(PLACE))
    assert _Counted.most == 4, "supports and queries of two blocks"
    waits = sum(entry.kind == "wait" for entry in device.ledger.entries[before:])
    assert waits <= 7 + 2, "blocks; counts and upload"
    assert there.episodes_digest == evaluate(_features(), _options(20), Compute()).episodes_digest


class _Launches(TorchDispatchMode):
    """Counts what would start a kernel: all operations but views and what is on the host alone."""

    VIEWS = ("view", "expand", "slice", "select", "unsqueeze", "t.", "transpose", "detach", "alias", "unbind",
             "empty", "_unsafe_view", "split", "permute", "squeeze")  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += not func.__name__.startswith(self.VIEWS)
        return func(*args, **(kwargs or {}))


def test_six_hundred_episodes_start_few_kernels() -> None:
    """About 5 microseconds each on a GPU."""
    pools = [np.arange(200 * c, 200 * (c + 1)) for c in range(7)]
    matrix = torch.randn(1400, 4)
    with _Launches() as launches:
        drawn = DeviceSampler(pools, Identity(0, "", 5, 5, 15), None, "cpu").draw(600)
        classify_on_device(matrix, drawn.support, drawn.query)
    assert 0 < launches.count <= 235


def test_a_round_of_philox_starts_thirteen_kernels() -> None:
    with _Launches() as launches:
        random_raw([Span(1, 0, 100), Span(2, 0, 100)], "cpu")
    assert launches.count <= 10 * 13 + 15, "ten rounds; counters and keys before, and the words after"


class _Kinds(TorchDispatchMode):
    """Notes the types of all tensors made."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = func(*args, **(kwargs or {}))
        self.dtypes |= {each.dtype for each in (made,) if isinstance(each, torch.Tensor)}
        return made


def test_counts_are_whole_numbers() -> None:
    """CUDA multiplies by the reciprocal of a number instead of dividing, which may lose the last bit."""
    pools = [np.arange(20 * c, 20 * (c + 1)) for c in range(4)]
    drawn = DeviceSampler(pools, Identity(0, "", 3, 2, 5), None, "cpu").draw(8)
    tally, predicted = DeviceTally(4, 80, "cpu"), torch.randint(0, 3, (8, 3, 5))
    with _Kinds() as made:
        tally.add(drawn, predicted)
    assert made.dtypes and not any(dtype.is_floating_point for dtype in made.dtypes)
    right = predicted.numpy() == np.arange(3)[:, None]
    assert torch.cat(tally.right).tolist() == right.sum((1, 2)).tolist()
    rows = np.bincount(drawn.query.numpy()[right], minlength=80)
    assert tally.correct.tolist() == rows.tolist()
