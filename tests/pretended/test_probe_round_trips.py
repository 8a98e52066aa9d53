"""How often a fit of the probe waits for the device: a constant, and thrice for every reading.

A driver reads every `INTERVAL` iterations; after each reading it decomposes the small matrices of curvature,
for which torch waits, and may read once more to choose Hessian blocks. Nothing else may wait: not for values
of C, findings, classes, or rows.
"""

import threading
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine.evals.common.compute import Compute
from engine.evals.common.features import Features
from engine.evals.probe.evaluate import ProbeOptions, probe
from engine.evals.probe.options import Options as ProbeSettings
from engine.evals.probe.resident import one_ahead
from engine.evals.probe.solvers import _centred, _for_batched
from engine.kernels.logistic import design_matrix, path
from engine.kernels.logistic.device_blocks import DeviceBlocks
from engine.kernels.logistic.device_lbfgs import INTERVAL
from engine.kernels.logistic.solver import Fits, Options, fit, fit_many
from tests.pretended.streams import Device

DEVICE = Options(device="cuda:0")
#: Waits of a fit that do not depend on its iterations: the mean, the spectrum, the first reading of each of
#: three stages, which stages need more, and the solutions.
CONSTANT = 18


def problem(rows: int = 300, findings: int = 3) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((rows, 6)).astype(np.float32)
    scores = x @ rng.standard_normal((6, findings)) + rng.standard_normal((rows, findings))
    return x, (scores > 0.3).astype(np.int64)


def classes_of(y: NDArray[np.int64]) -> NDArray[np.int64]:
    return y @ (1 << np.arange(y.shape[1])) % 5


def strengths(count: int) -> NDArray[np.float64]:
    return np.logspace(-5, -2, count)


def waits(device: Device, run: "Run") -> tuple[int, int]:
    """Waits of a fit, and its iterations."""
    before, turns = device.ledger.count("wait"), [0]
    run(lambda done, total, turn: turns.__setitem__(0, turn))
    return device.ledger.count("wait") - before, turns[0]


class Run:
    """A fit, and what it gave."""

    def __init__(self, x: object, y: NDArray[np.int64], C: NDArray[np.float64]) -> None:
        self._x, self._y, self._C = x, y, C
        self.fits: list[Fits] = []

    def __call__(self, tick: object) -> None:
        some = {"options": DEVICE, "on_progress": tick}
        if self._y.ndim == 1:
            self.fits = [fit(self._x, self._y, self._C, **some)]  # type: ignore[arg-type]
        else:
            self.fits = fit_many(self._x, self._y, self._C, **some)  # type: ignore[arg-type]


X, Y = problem()
MORE = problem(2000)
#: Members that differ in one of what the bound must not know.
CASES = {
    "45 values": (X, classes_of(Y), 45),
    "three findings": (X, Y, 13),
    "13 values of more rows": (MORE[0], classes_of(MORE[1]), 13),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_waits_and_copies_grow_with_readings_alone(
    name: str, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(design_matrix, "SMALL", 0)  # first in float32, then in float64
    monkeypatch.setattr(path, "_LARGEST", 100)  # fewer values one after another: a quicker test
    x, y, values = CASES[name]
    run = Run(x, y, strengths(values))
    counted, turns = waits(device, run)
    assert all(one.converged.all() for one in run.fits)
    readings = turns / INTERVAL + 1
    assert counted <= CONSTANT + 3 * readings
    assert device.ledger.count("download") <= CONSTANT + 2 * readings
    assert device.ledger.count("upload") <= 2 * CONSTANT + 8 * readings
    if y.ndim == 1 and y.max() > 1:
        expected = fit(x, y, strengths(values))
        np.testing.assert_allclose(run.fits[0].objective, expected.objective, rtol=1e-6)


def test_hessian_blocks_take_one_reading_more(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rare, separable classes at large C have blocks, all of which one reading chooses."""
    monkeypatch.setattr(design_matrix, "SMALL", 0)
    choices: list[tuple[int, bool]] = []
    used: list[bool] = []
    choose = DeviceBlocks.choose

    def counted(self: DeviceBlocks, *args: Any) -> Any:
        before = device.ledger.count("wait")
        result = choose(self, *args)
        choices.append((device.ledger.count("wait") - before, result[1]))
        return result

    apply = DeviceBlocks.apply
    monkeypatch.setattr(DeviceBlocks, "choose", counted)
    monkeypatch.setattr(DeviceBlocks, "apply", lambda *args: used.append(True) or apply(*args))
    rng = np.random.default_rng(8)
    x = rng.standard_normal((250, 5)).astype(np.float32)
    y = (x @ rng.standard_normal((5, 3)) > 2.5).astype(np.int64)
    C = np.logspace(0, 2, 3)
    run = Run(x, y, C)
    waited, turns = waits(device, run)
    assert used and any(computed for _, computed in choices) and {waits for waits, _ in choices} == {1}
    assert waited <= CONSTANT + 3 * (turns / INTERVAL + 1)
    for found, expected in zip(run.fits, fit_many(x, y, C), strict=True):
        assert found.converged.all()
        np.testing.assert_allclose(found.objective, expected.objective, rtol=1e-6)


def test_rows_on_the_device_are_not_copied(device: Device) -> None:
    resident, y = torch.from_numpy(X).to("cuda:0"), classes_of(Y)
    before = device.ledger.size("upload"), device.ledger.size("download")
    fit(resident, y, [0.1], options=DEVICE)
    uploaded = device.ledger.size("upload") - before[0]
    downloaded = device.ledger.size("download") - before[1]
    assert uploaded < X.nbytes + 16 * len(y), "codes and weights of the rows, and little else"
    assert downloaded < 2000, "the mean, readings, and solutions"


def test_rows_that_do_not_fit_are_streamed_from_pinned_memory(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(design_matrix, "_CUDA_ROWS", 64)
    y = classes_of(Y)
    streamed = fit(X, y, [0.1], options=Options(device="cuda:0", memory=1))
    copies = [entry for entry in device.ledger.entries if entry.kind == "upload"]
    assert sum(entry.size for entry in copies) > 2 * X.nbytes and all(entry.pinned for entry in copies)
    np.testing.assert_allclose(streamed.objective, fit(X, y, [0.1]).objective, rtol=1e-9)


def test_a_feature_that_is_not_finite_is_refused_with_its_place(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(design_matrix, "_CUDA_ROWS", 64)
    broken = X.copy()
    broken[100, 4] = np.inf
    with pytest.raises(Exception, match="NaN or infinite, in column 4, rows 64 to 127"):
        fit(torch.from_numpy(broken).to("cuda:0"), Y[:, 0], [1.0], options=DEVICE)


def test_the_memory_is_the_cards() -> None:
    assert Options().limit == 4 << 30
    assert Options(memory=5).limit == 5


def test_the_memory_of_a_device_is_what_is_free(device: Device) -> None:
    assert DEVICE.limit == (140 << 30) * 3 // 4


def test_a_probe_uploads_its_features_once(device: Device) -> None:
    """For the sweep, the choice, the refit and the test; with what the CPU gives."""
    thirds = np.arange(len(X)) % 3
    parts = {"train": thirds == 0, "val": thirds == 1, "test": thirds == 2}
    wide = np.tile(X, (1, 40))  # so that nothing else is as large
    on_cpu = ProbeOptions(C=(0.01, 0.1), bootstrap=0)
    here = probe(wide, Y[:, 0], **parts, options=on_cpu)
    there = probe(wide, Y[:, 0], **parts, options=replace(on_cpu, device="cuda:0"))
    sizes = [entry.size for entry in device.ledger.entries if entry.kind == "upload"]
    assert sizes.count(wide.nbytes) == 1 and sum(sizes) < 2 * wide.nbytes
    assert max(entry.size for entry in device.ledger.entries if entry.kind == "download") < wide.nbytes / 2
    np.testing.assert_allclose(there.probabilities, here.probabilities, atol=1e-4)
    np.testing.assert_allclose(there.sweep.val_log_loss, here.sweep.val_log_loss, rtol=1e-4)
    assert there.best_C == here.best_C


def test_the_next_models_features_are_sent_while_one_is_used(device: Device) -> None:
    opened: list[int] = []
    second_is_open = threading.Event()

    def opening(number: int) -> Features:
        opened.append(number)
        if number == 1:
            second_is_open.set()
        return Features.from_arrays(X + number, Y[:, 0])

    options = ProbeOptions(device="cuda:0")
    for number, (features, array) in enumerate(one_ahead([partial(opening, n) for n in range(3)], options)):
        if number == 0:
            assert second_is_open.wait(10), "before the first one is given back"
        assert array.device.type == "cuda" and len(opened) <= number + 2
        np.testing.assert_array_equal((array * 1).cpu().numpy(), features.array)
    assert opened == [0, 1, 2]


def test_an_evaluations_memory_is_the_fits() -> None:
    assert ProbeSettings().on(Compute(memory=12345)).memory == 12345
    given = _for_batched(None, ProbeOptions(memory=12345), None)["options"]
    assert given.limit == 12345


def test_a_device_tensor_is_centred_without_the_host(device: Device) -> None:
    tensor, rows = torch.from_numpy(X).to("cuda:0"), np.arange(0, 300, 2)
    mean, scale = X.mean(0).astype(np.float64), X.std(0).astype(np.float64)
    before = device.ledger.count("download")
    found = _centred(tensor, rows, mean, scale)
    assert found.device.type == "cuda" and device.ledger.count("download") == before
    np.testing.assert_allclose(found.cpu().numpy(), (X[rows].astype(np.float64) - mean) / scale, rtol=1e-12)
