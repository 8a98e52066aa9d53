"""The Hessian's blocks as a preconditioner: equal to plain float64 algebra, and what they are good for."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from engine.kernels.logistic import design_matrix, device_blocks, preconditioner
from engine.kernels.logistic.design_matrix import DesignMatrix
from engine.kernels.logistic.device_blocks import DeviceBlocks
from engine.kernels.logistic.lbfgs import Spectrum
from engine.kernels.logistic.preconditioner import BlockAssignment, HessianBlocks
from engine.kernels.logistic.solver import Options, fit
from tests.oracles.logistic import objective


def _blocks(
    x: np.ndarray,
    outputs: int,
    dtype: torch.dtype = torch.float64,
    kind: type[HessianBlocks] = HessianBlocks,
) -> HessianBlocks:
    rows = DesignMatrix.around_mean(x, np.arange(len(x)), None, "cpu", 1 << 30)
    return kind(rows, Spectrum.of(rows), outputs, dtype, 1 << 30)


def _solve(blocks: HessianBlocks, p: np.ndarray, gradients: np.ndarray, C: float) -> np.ndarray:
    """Of one fit with probabilities p [K', n]."""
    task, variances = torch.zeros(1, dtype=torch.int64), torch.from_numpy(p * (1 - p))[None]
    variances = variances.to(blocks._dtype)
    if isinstance(blocks, DeviceBlocks):
        chosen, computed = blocks.choose(np.zeros(1, np.intp), variances, np.zeros(1, np.bool_), np.inf)
        plan = blocks.plan(chosen, np.array([C]))
        assert computed and plan is not None and plan.has_blocks.all()
        applied = blocks.apply(
            plan, torch.from_numpy(gradients)[None], torch.tensor([C], dtype=torch.float64)
        )
        return applied[0].double().numpy()
    assert blocks.extend(task, variances, torch.zeros(1, dtype=torch.bool))
    assignment = blocks.assign(task, variances)
    assert assignment.has_blocks.all()
    found = blocks.solve(
        assignment, torch.from_numpy(gradients)[None], torch.tensor([C], dtype=torch.float64)
    )
    return found[0].double().numpy()


def _expected(x: np.ndarray, p: np.ndarray, gradients: np.ndarray, C: float) -> np.ndarray:
    """Z diag((C A_k + I)^-1) Z g, and the mean over classes as it comes (intercepts: nothing)."""
    wide = np.column_stack([x - x.mean(0), np.ones(len(x))])
    ridge = np.diag([1.0] * x.shape[1] + [0.0])
    common = gradients.mean(0) if len(p) > 1 else np.zeros(wide.shape[1])
    found = np.stack(
        [
            np.linalg.solve(C * (wide.T * (q * (1 - q))) @ wide + ridge, g - common)
            for q, g in zip(p, gradients, strict=True)
        ]
    )
    if len(p) > 1:
        found -= found.mean(0)
    return found + np.where(np.arange(wide.shape[1]) < x.shape[1], common, 0.0)


def _softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(0))
    found: np.ndarray = e / e.sum(0)
    return found


@pytest.mark.parametrize("kind", [HessianBlocks, DeviceBlocks])
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("C", [1e-2, 1.0, 1e4])
def test_solves_with_the_blocks(
    outputs: int, C: float, kind: type[HessianBlocks], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (preconditioner, device_blocks):
        monkeypatch.setattr(module, "OMITTED_SHARE", 0.0)
        monkeypatch.setattr(module, "ROWS_FOR_DIAGONAL", np.inf)
    monkeypatch.setattr(design_matrix, "_PANEL", 4)  # panels that do not divide the columns
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 10)) * np.logspace(-1, 1, 10) + 3
    z = rng.normal(size=(outputs, 200))
    p = 1 / (1 + np.exp(-z)) if outputs == 1 else _softmax(z)
    gradients = rng.normal(size=(outputs, 11))
    found = _solve(_blocks(x, outputs, kind=kind), p, gradients, C)
    np.testing.assert_allclose(found, _expected(x, p, gradients, C), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("kind", [HessianBlocks, DeviceBlocks])
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("C", [1e-2, 1e4])
def test_diagonals_stand_for_blocks_of_enough_rows(kept: bool, C: float, kind: type[HessianBlocks]) -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(400, 10)) @ rng.normal(size=(10, 10)) + 3
    p, gradients = _softmax(rng.normal(size=(3, 400))), rng.normal(size=(3, 11))
    blocks = _blocks(x, 3, kind=kind)
    blocks._may_cache_rows = kept
    found = _solve(blocks, p, gradients, C)
    centred = x - x.mean(0)
    vectors = np.linalg.eigh(centred.T @ centred)[1]  # in this basis all but the diagonals are lost
    turned = np.column_stack([centred @ vectors, np.ones(400)])
    apart = gradients - gradients.mean(0)
    g = np.column_stack([apart[:, :10] @ vectors, apart[:, 10]])
    g /= C * (p * (1 - p)) @ turned**2 + np.array([1.0] * 10 + [0.0])
    expected = np.column_stack([g[:, :10] @ vectors.T, g[:, 10]])
    expected += np.append(gradients.mean(0)[:10], 0.0) - expected.mean(0)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-12)


def test_classes_that_few_rows_decide_have_full_blocks() -> None:
    rng = np.random.default_rng(8)
    variances = torch.full((1, 2, 300), 1e-9, dtype=torch.float64)
    variances[0, 0], variances[0, 1, :15] = 0.1, 0.1
    blocks, task = _blocks(rng.normal(size=(300, 10)), 2), torch.zeros(1, dtype=torch.int64)
    blocks.extend(task, variances, torch.zeros(1, dtype=torch.bool))
    (assignment,) = blocks.assign(task, variances).blocks
    assert assignment is not None
    assert [block.is_diagonal for block in assignment] == [True, False]


def test_bfloat16_blurs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preconditioner, "ROWS_FOR_DIAGONAL", np.inf)
    monkeypatch.setattr(preconditioner, "fast_bfloat16", lambda device: True)
    rng = np.random.default_rng(2)
    x = (rng.normal(size=(4000, 20)) * np.logspace(-2, 1, 20)).astype(np.float32)
    p, gradients = _softmax(rng.normal(size=(3, 4000))), rng.normal(size=(3, 21))
    blocks = _blocks(x, 3, torch.float32)
    assert blocks._product_dtype == torch.bfloat16
    found, expected = _solve(blocks, p, gradients, 10.0), _expected(x, p, gradients, 10.0)
    assert np.linalg.norm(found - expected) <= 0.02 * np.linalg.norm(expected)


@given(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=8))
def test_rows_that_are_alike_leave_a_spectrum_between_1_and_2(shares: list[float]) -> None:
    """The claim of the module's docstring, for the loss's Hessian diag(p) - p p^T on what sums to zero."""
    p = np.array(shares) / np.sum(shares)
    sums_to_zero = np.linalg.svd(np.eye(len(p)) - 1 / len(p))[0][:, : len(p) - 1]
    hessian = sums_to_zero.T @ (np.diag(p) - np.outer(p, p)) @ sums_to_zero
    inverse = sums_to_zero.T @ np.diag(1 / (p * (1 - p))) @ sums_to_zero
    values = np.linalg.eigvals(inverse @ hessian).real
    assert values.min() >= 1 - 1e-6
    assert values.max() <= 2 + 1e-6


def test_fits_alike_share_their_blocks_and_others_do_not() -> None:
    rng = np.random.default_rng(3)
    x, p = rng.normal(size=(300, 5)), rng.uniform(0.2, 0.8, (1, 300))
    blocks, task = _blocks(x, 1), torch.zeros(3, dtype=torch.int64)
    near, far = torch.from_numpy(p * (1 - p)), torch.from_numpy(0.05 * rng.uniform(size=(1, 300)))
    variances, slow = torch.stack([near, 1.1 * near, far]), torch.zeros(3, dtype=torch.bool)
    assert blocks.assign(task, variances).has_blocks.tolist() == [False] * 3
    assert not blocks.extend(task, variances, slow, budget=1.0)  # dearer than that
    assert blocks.extend(task, variances, slow)
    assignment = blocks.assign(task, variances)
    assert assignment.blocks[0] is not None
    assert assignment.blocks[1] is not None
    assert assignment.blocks[0][0] is assignment.blocks[1][0]
    assert assignment.blocks[0][0] is not assignment.blocks[2][0]  # type: ignore[index]
    assert not blocks.extend(task, variances, slow)  # nothing is lacking


def test_assignments_follow_the_fits() -> None:
    a, b = object(), object()
    none = torch.device("cpu")
    assignment = BlockAssignment([[a], None, [a]], none)  # type: ignore[list-item]
    renewed = BlockAssignment([[a], [b]], none)  # type: ignore[list-item]
    changed = assignment.renew(torch.tensor([True, True, False]), renewed)
    assert changed.tolist() == [False, True, False]
    assert assignment.has_blocks.tolist() == [True, True, True]
    assignment.join(BlockAssignment([None], none))
    assignment.keep(torch.tensor([False, True, False, True]))
    assert assignment.blocks == [[b], None]
    assert assignment.has_blocks.tolist() == [True, False]
    assert assignment.take(assignment.has_blocks).blocks == [[b]]


def test_unused_blocks_are_evicted_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preconditioner, "ROWS_FOR_DIAGONAL", np.inf)
    rng = np.random.default_rng(4)
    blocks, task = _blocks(rng.normal(size=(300, 5)), 1), torch.zeros(1, dtype=torch.int64)
    blocks._room = 3 * 36 * 8
    for size in (0.01, 0.1, 1.0, 10.0):
        variances = torch.from_numpy(size * rng.uniform(size=(1, 1, 300)))
        blocks.extend(task, variances, torch.zeros(1, dtype=torch.bool))
        assert blocks.assign(task, variances).has_blocks.all()  # what is in use stays
    assert len(blocks._blocks[0, 0]) == 3
    first = BlockAssignment([[blocks._blocks[0, 0][0]]], task.device)
    blocks.assign(task, variances, first)
    blocks._room = 2 * 36 * 8
    blocks.assign(task, variances, first)
    assert first.blocks[0][0] in blocks._blocks[0, 0]  # in use besides, though the oldest


def test_certain_rows_without_any_curvature_give_a_finite_direction() -> None:
    rng = np.random.default_rng(5)
    x, gradients = rng.normal(size=(50, 4)), rng.normal(size=(1, 5))
    assert np.isfinite(_solve(_blocks(x, 1), np.ones((1, 50)), gradients, 1e6)).all()


def _rare() -> tuple[np.ndarray, np.ndarray]:
    """Three classes, one of them rare and nearly separable: few rows bend the objective."""
    rng = np.random.default_rng(6)
    y = rng.choice(3, 6000, p=[0.8, 0.17, 0.03])
    x = rng.normal(size=(6000, 200)) * np.arange(1, 201) ** -0.5 + rng.normal(size=(3, 200))[y] * 0.05
    return x.astype(np.float32), y


@pytest.mark.slow
def test_a_rare_class_is_estimated_honestly_and_soon_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(design_matrix, "SMALL", 0)  # in float32 first
    x, y = _rare()
    C = 1.0 / np.logspace(-6, 5, 12)
    fits = fit(x, y, C, options=Options(tolerance=1e-5))
    assert fits.converged.all()
    newton = LogisticRegression(C=C[0], solver="newton-cholesky", tol=1e-6).fit(x.astype(np.float64), y)
    lowest = objective(x, y, newton.coef_, newton.intercept_, C[0])
    assert objective(x, y, fits.coef[0], fits.intercept[0], C[0]) <= lowest * (1 + 1e-5)
    monkeypatch.setattr(HessianBlocks, "fit_in_memory", lambda self, tasks: False)
    without = fit(x, y, C, options=Options(tolerance=1e-5))
    assert fits.iterations.sum() < 0.75 * without.iterations.sum()


def test_the_device_chooses_what_the_cpu_chooses() -> None:
    """Of fits along a path of two tasks, whose weights change from one to the next."""
    rng = np.random.default_rng(11)
    x = rng.normal(size=(300, 12))
    scores = x @ rng.normal(size=(12, 2))
    task = np.repeat([0, 1], 12)
    z = scores[:, task].T * np.tile(np.logspace(-1, 1.5, 12), 2)[:, None]
    p = 1 / (1 + np.exp(-z))
    variances, slow = torch.from_numpy(p * (1 - p))[:, None], rng.random(24) < 0.5
    cpu, device = _blocks(x, 1), _blocks(x, 1, kind=DeviceBlocks)
    assert isinstance(device, DeviceBlocks)
    tasks = torch.from_numpy(task)
    assert cpu.extend(tasks, variances, torch.from_numpy(slow))
    expected = cpu.assign(tasks, variances)
    chosen, computed = device.choose(task, variances, slow, np.inf)
    assert computed and all(chosen) and expected.has_blocks.all()
    for found, same in zip(chosen, expected.blocks, strict=True):
        assert found is not None and same is not None
        assert torch.equal(found[0].weights, same[0].weights)
        assert found[0].is_diagonal == same[0].is_diagonal
        grams = (torch.tril(torch.atleast_2d(block.gram)) for block in (found[0], same[0]))
        torch.testing.assert_close(*grams)
    assert not device.choose(task, variances, slow, np.inf)[1], "none is lacking"
    assert not device.choose(task, variances**2, slow, 0.0)[1], "they cost more than nothing"
