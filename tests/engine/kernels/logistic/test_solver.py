"""The batched solver: at scikit-learn's minimum on every kind of problem, and honest where it is not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from benchmarks.speed.probe import made_features
from engine.errors import Refused
from engine.kernels.logistic import design_matrix
from engine.kernels.logistic import path as logistic_path
from engine.kernels.logistic.solver import Fits, Options, fit, fit_many
from tests.oracles.logistic import minimum, objective

GRID = 1.0 / np.logspace(-6, 5, 45)
SHAPES = (
    "overlapping",
    "separable",
    "collinear",
    "short",
    "unbalanced",
    "scales",
    "offsets",
    "constant",
    "rows",
)


def _problem(shape: str, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    n, d = (24, 40) if shape == "short" else (160, 12)
    y = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    if shape == "unbalanced":
        y = np.where(np.arange(n) < classes, y, np.where(rng.random(n) < 0.95, 0, y))
    x = rng.normal(size=(n, d)) + rng.normal(size=(classes, d))[y] * (4.0 if shape == "separable" else 0.4)
    if shape == "collinear":
        x[:, 6:] = np.concatenate([x[:, :3], x[:, :2] + x[:, 2:4], 2 * x[:, 5:6]], axis=1)
    if shape == "scales":
        x *= np.logspace(-3, 2, d)
    if shape == "offsets":
        x += rng.normal(size=d) * 100
    if shape == "constant":
        x[:, ::3] = 5.0
    if shape == "rows":
        x[1::2] = x[::2]
    return x.astype(np.float32), y


def _at_minimum(fits: Fits, x: np.ndarray, y: np.ndarray, which: list[int]) -> None:
    """Objective, recomputed from the coefficients, within 1e-6 of the minimum; accuracy within 1e-3."""
    for r in which:
        value = objective(x, y, fits.coef[r], fits.intercept[r], fits.C[r])
        assert value == pytest.approx(fits.objective[r], rel=1e-9)
        lowest, model = minimum(x, y, fits.C[r])
        assert value <= lowest * (1 + 1e-6)
        assert value >= lowest * (1 - 1e-6) or fits.C[r] > 100  # where scikit-learn itself gives up
        ours = fits.scores(x, r).argmax(1) == y
        assert ours.mean() == pytest.approx((model.predict(x) == y).mean(), abs=1e-3) or fits.C[r] > 1e4


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_reaches_scikit_learns_minimum(shape: str, classes: int) -> None:
    x, y = _problem(shape, classes, seed=1)
    fits = fit(x, y, GRID)
    assert fits.converged.all()
    assert fits.coef.shape == (45, 1 if classes == 2 else 3, x.shape[1])
    _at_minimum(fits, x, y, [0, 7, 20, 30, 44])


@pytest.mark.slow
@given(
    st.sampled_from(SHAPES),
    st.integers(2, 5),
    st.integers(0, 2**32 - 1),
    st.floats(-5, 3),
    st.sampled_from([None, "balanced"]),
)
@settings(max_examples=25, deadline=None)
def test_any_problem(shape: str, classes: int, seed: int, log: float, class_weight: str | None) -> None:
    x, y = _problem(shape, classes, seed)
    counts = np.bincount(y)
    weight = None if class_weight is None else (len(y) / (classes * counts))[y]
    C = 10.0**log
    fits = fit(x, y, [C], class_weight=class_weight)
    assert fits.converged.all()
    value = objective(x, y, fits.coef[0], fits.intercept[0], C, weight)
    assert value == pytest.approx(fits.objective[0], rel=1e-9)
    assert value <= minimum(x, y, C, weight)[0] * (1 + 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("shape", ["overlapping", "offsets", "unbalanced", "separable"])
def test_float32_then_float64_reaches_the_same(
    shape: str, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = _problem(shape, classes, seed=2)
    slow = fit(x, y, GRID)
    monkeypatch.setattr(design_matrix, "SMALL", 0)
    fits = fit(x, y, GRID)
    assert "float32" in fits.seconds
    assert "float32" not in slow.seconds
    assert fits.converged.all()
    np.testing.assert_allclose(fits.objective, slow.objective, rtol=1e-6)
    _at_minimum(fits, x, y, [0, 20, 44])


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 4])
def test_streamed_rows_change_nothing(classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = _problem("overlapping", classes, seed=3)
    np.save(tmp_path / "x.npy", x.astype(np.float16))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    monkeypatch.setattr(design_matrix, "SMALL", 0)
    monkeypatch.setattr(design_matrix, "_CPU_ROWS", 50)
    resident = fit(mapped, y, GRID)
    streamed = fit(mapped, y, GRID, options=Options(memory=1))  # and one problem at a time
    np.testing.assert_allclose(streamed.objective, resident.objective, rtol=1e-6)
    _at_minimum(streamed, x.astype(np.float16), y, [0, 20, 44])


def test_the_same_twice_whatever_the_order_of_C() -> None:
    x, y = _problem("overlapping", 3, seed=4)
    first, again = fit(x, y, GRID), fit(x, y, GRID)
    np.testing.assert_array_equal(first.coef, again.coef)
    order = np.random.default_rng(0).permutation(45)
    mixed = fit(x, y, np.concatenate([GRID[order], GRID[:3]]))
    np.testing.assert_array_equal(mixed.coef[:45], first.coef[order])
    np.testing.assert_array_equal(mixed.coef[45:], first.coef[:3])


def test_two_class_softmax_is_binary_at_twice_C() -> None:
    x, y = _problem("overlapping", 2, seed=5)
    wide = x.astype(np.float64)

    def softmax(theta: np.ndarray) -> float:
        coef, intercept = theta[:-2].reshape(2, -1), theta[-2:]
        z = wide @ coef.T + intercept
        losses = np.logaddexp(z[:, 0], z[:, 1]) - z[np.arange(len(y)), y]
        return float(0.5 * (coef**2).sum() + 1.5 * losses.sum())

    start = np.zeros(2 * x.shape[1] + 2)
    found = minimize(softmax, start, options={"gtol": 1e-5}).x
    binary = fit(x, y, [3.0])
    coef = found[:-2].reshape(2, -1)
    np.testing.assert_allclose(binary.coef[0, 0], coef[1] - coef[0], atol=1e-3)
    np.testing.assert_allclose(binary.intercept[0, 0], found[-1] - found[-2], atol=1e-3)


def test_standardised_is_scikit_learn_on_standardised_features() -> None:
    x, y = _problem("scales", 3, seed=6)
    mean, scale = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    fits = fit(x, y, [0.1, 10.0], standardise=(mean, scale))
    z = (x.astype(np.float64) - mean) / scale
    for r, C in enumerate(fits.C):
        lowest, model = minimum(z, y, C)
        assert fits.objective[r] == pytest.approx(lowest, rel=1e-6)
        np.testing.assert_allclose(fits.coef[r] * scale, model.coef_, atol=2e-2 * np.abs(model.coef_).max())
        np.testing.assert_allclose(fits.scores(x, r), model.predict_proba(z), atol=1e-2)


def test_tasks_with_their_own_rows_equal_their_lone_fits() -> None:
    x, _ = _problem("overlapping", 3, seed=7)
    rng = np.random.default_rng(7)
    targets = rng.integers(-1, 2, (len(x), 4))
    targets[:, 2] = (x[:, 0] > 0) * 1
    targets[:5] = -1
    many = fit_many(x, targets, GRID[::4], class_weight="balanced")
    for t, fits in enumerate(many):
        alone = fit(x, targets[:, t], GRID[::4], class_weight="balanced")
        np.testing.assert_allclose(fits.objective, alone.objective, rtol=1e-6)
        assert fits.rows == alone.rows == (targets[:, t] >= 0).sum()
        used = targets[:, t] >= 0
        y = targets[used, t]
        weight = (len(y) / (2 * np.bincount(y)))[y]
        assert fits.objective[5] <= minimum(x[used], y, fits.C[5], weight)[0] * (1 + 1e-6)


def test_gradient_norm_is_the_gradients() -> None:
    x, y = _problem("overlapping", 3, seed=8)
    for options in (Options(), Options(max_iterations=2)):
        fits = fit(x, y, [0.1, 100.0], options=options)
        centred = x - x.mean(0, dtype=np.float64)
        for r, C in enumerate(fits.C):
            error = fits.scores(x, r) - np.eye(3)[y]
            gradient = np.concatenate(
                [fits.coef[r] + C * error.T @ centred, C * error.sum(0)[:, None]], axis=1
            )
            assert fits.gradient_norm[r] == pytest.approx(np.linalg.norm(gradient), rel=1e-3, abs=1e-6 * C)
            lowest = minimum(x, y, C)[0]
            assert fits.objective[r] - lowest <= fits.gap[r] + 1e-9 * lowest


def test_what_has_not_converged_says_so() -> None:
    x, y = _problem("overlapping", 3, seed=9)
    fits = fit(x, y, [1e-5, 1e6], options=Options(max_iterations=2))
    assert fits.converged.tolist() == [True, False]
    assert fits.iterations.max() <= 2
    assert fits.decrement[1] > 1e-8


def test_constant_features_give_the_class_shares() -> None:
    y = np.array([0, 0, 0, 1, 2, 2])
    fits = fit(np.full((6, 3), 7.0, np.float32), y, GRID)
    assert fits.converged.all()
    assert not fits.coef.any()
    np.testing.assert_allclose(fits.path_scores(np.full((1, 3), 7.0))[:, 0], [[3 / 6, 1 / 6, 2 / 6]] * 45)


def test_torch_features_and_rows_left_out() -> None:
    x, y = _problem("overlapping", 3, seed=10)
    rows = np.random.default_rng(0).permutation(len(x))[:100]
    codes = y.copy()
    codes[::7] = -1
    used = np.sort(rows[codes[rows] >= 0])
    plain = fit(x[used], y[used], [1.0])
    np.testing.assert_array_equal(fit(x, codes, [1.0], rows=rows).coef, plain.coef)
    np.testing.assert_array_equal(fit(torch.from_numpy(x), codes, [1.0], rows=rows).coef, plain.coef)


def test_progress_and_interruption() -> None:
    x, y = _problem("overlapping", 3, seed=11)
    seen: list[tuple[int, int, int]] = []
    fit(x, y, GRID, on_progress=lambda *counts: seen.append(counts))
    assert {total for _, total, _ in seen} == {45}
    assert [i for _, _, i in seen] == list(range(1, len(seen) + 1))
    done = [d for d, _, _ in seen]
    assert done[0] == 0 and done == sorted(done) and 20 < done[-1] < 45

    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    before = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        fit(x, y, GRID, options=Options(threads=1), on_progress=stop)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused(value: float) -> None:
    x, y = _problem("overlapping", 3, seed=12)
    x[100, 5] = value
    with pytest.raises(Refused, match="column 5"):
        fit(x, y, [1.0])
    keep = np.delete(np.arange(len(x)), 100)
    assert fit(x, y, [1.0], rows=keep).converged.all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"targets": np.zeros(6, int)}, "1 class among 6"),
        ({"targets": np.full(6, -1)}, "0 class among 0"),
        ({"targets": np.array([0, 0, 2, 2, 0, 2])}, "class 1 without rows"),
        ({"C": [1.0, 0.0]}, "positive"),
        ({"C": [np.inf]}, "positive"),
        ({"C": []}, "positive"),
        ({"targets": np.array([0, 1, 0])}, "6 rows of features and 3 targets"),
        ({"targets": np.zeros((6, 2), int)}, "fit_many"),
        ({"class_weight": "even"}, "balanced"),
        ({"class_weight": [1.0]}, "2 positive numbers"),
    ],
)
def test_bad_input_is_refused(change: dict[str, object], words: str) -> None:
    given_: dict[str, object] = {"targets": np.array([0, 1, 0, 1, 0, 1]), "C": [1.0]} | change
    with pytest.raises(Refused, match=words):
        fit(np.random.default_rng(0).normal(size=(6, 2)), **given_)  # type: ignore[arg-type]


def test_bad_tasks_are_refused() -> None:
    x = np.random.default_rng(0).normal(size=(6, 2))
    with pytest.raises(Refused, match="use fit"):
        fit_many(x, np.array([[0], [1], [2], [0], [1], [2]]), [1.0])
    with pytest.raises(Refused, match="leave that task out"):
        fit_many(x, np.array([[0, 1], [1, 1], [0, -1], [0, 1], [1, 1], [1, 1]]), [1.0])


def test_interpolation_is_exact_for_cubics_and_linear_where_uneven() -> None:
    known = np.array([-3.0, -2.0, -0.9, 0.0, 1.1, 2.0])
    wanted = np.array([-2.5, -0.4, 0.5, 1.7])
    cubic = np.polynomial.Polynomial([2.0, -1.0, 1.0, -0.3])
    np.testing.assert_allclose(logistic_path.weights(known, wanted) @ cubic(known), cubic(wanted))
    uneven = np.array([0.0, 1e-6, 1.0, 1.0 + 1e-6])
    weights = logistic_path.weights(uneven, np.array([0.5]))
    assert np.abs(weights).sum() <= 2
    np.testing.assert_allclose(weights @ (3 * uneven), 1.5)


@given(st.integers(1, 60))
def test_waves_are_all_values_once(count: int) -> None:
    found = logistic_path.waves(count)
    assert sorted(np.concatenate(found).tolist()) == list(range(count))
    known = found[0]
    for wave in found[1:]:
        inside = (known.min() <= wave).all() and (wave <= known.max()).all()
        assert inside or (len(wave) == 1 and len(known) > 1)  # only one value at a time continues the path
        known = np.union1d(known, wave)


@given(st.integers(1, 60))
def test_starts_need_only_what_comes_before(count: int) -> None:
    positions = np.sort(np.random.default_rng(count).normal(size=count))
    order, weights = logistic_path.starts(positions)
    assert sorted(order.tolist()) == list(range(count))
    for place, r in enumerate(order):
        assert set(np.flatnonzero(weights[r])) <= set(order[:place].tolist())
    follow = (weights != 0).any(1)
    np.testing.assert_allclose(weights[follow].sum(1), 1.0)
    np.testing.assert_allclose((weights @ positions)[follow], positions[follow])  # all are exact for lines


@pytest.mark.slow
@pytest.mark.gpu
@pytest.mark.parametrize("classes", [2, 4])
def test_cuda_reaches_the_cpus_minimum(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = _problem("overlapping", classes, seed=13)
    expected = fit(x, y, GRID)
    for small in (0, design_matrix.SMALL):
        monkeypatch.setattr(design_matrix, "SMALL", small)
        found = fit(x, y, GRID, options=Options(device="cuda:0"))
        assert found.converged.all()
        np.testing.assert_allclose(found.objective, expected.objective, rtol=1e-6)


@pytest.mark.slow
def test_what_rare_features_gain_at_large_C_is_not_missed() -> None:
    """Channels that few rows have: classes come apart in them, and the mean Hessian does not show it."""
    x, y = made_features(900, 100, 10)
    fits = fit(x, y, GRID)
    wide = x.astype(np.float64)
    for r in (0, 1):
        newton = LogisticRegression(C=GRID[r], solver="newton-cholesky", tol=1e-8).fit(wide, y)
        lowest = objective(wide, y, newton.coef_, newton.intercept_, GRID[r])
        assert objective(wide, y, fits.coef[r], fits.intercept[r], GRID[r]) <= lowest * (1 + 1e-6)


@pytest.mark.parametrize("shape", ["overlapping", "separable"])
def test_none_waits_longer_than_for_what_it_starts_from(shape: str) -> None:
    x, y = _problem(shape, 3, seed=15)
    turns: list[int] = []
    fits = fit(x, y, GRID, on_progress=lambda *counts: turns.append(counts[2]))
    ascending = np.argsort(fits.C)
    order, weights = logistic_path.starts(np.log(fits.C[ascending]))
    done = np.zeros(len(order), dtype=int)
    for r in order:  # a turn to begin, and one for each iteration
        done[r] = done[weights[r] != 0].max(initial=0) + 1 + fits.iterations[ascending[r]]
    assert len(turns) == done.max() + 1


def test_neighbours_are_a_start_that_saves_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = _problem("overlapping", 3, seed=16)
    known = fit(x, y, GRID)
    order, weights = logistic_path.starts(np.sort(np.log(known.C)))
    monkeypatch.setattr(logistic_path, "starts", lambda positions: (order, np.zeros_like(weights)))
    alone = fit(x, y, GRID)
    np.testing.assert_allclose(known.objective, alone.objective, rtol=2e-7)
    assert known.iterations.sum() < 0.8 * alone.iterations.sum()
