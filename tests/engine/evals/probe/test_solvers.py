"""Backends against scikit-learn's second-order solver and against each other."""

import importlib.util
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from engine import doctor, runtime
from engine.errors import Refused
from engine.evals.probe import solvers
from engine.kernels.logistic.objective import measure
from engine.kernels.standardize import Scaler

GRID = [1e-3, 0.1, 10.0, 1e3]


@dataclass(frozen=True)
class Settings:
    backend: str = "sklearn"
    class_weight: str = "none"
    device: str = "cpu"
    threads: int = 1


def problem(classes: int, n: int = 150, d: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of unlike scales, unbalanced classes, and three quarters of the rows."""
    rng = np.random.default_rng(classes)
    y = np.concatenate(
        [
            np.arange(classes),
            rng.choice(classes, n, p=np.arange(1, classes + 1) / (classes * (classes + 1) / 2)),
        ]
    )
    x = rng.normal(size=(len(y), d)) + 1.2 * rng.normal(size=(classes, d))[y]
    return (x * np.logspace(-1, 1, d) + 3).astype(np.float32), y, np.flatnonzero(np.arange(len(y)) % 4 != 3)


@pytest.mark.parametrize("backend", ["batched", "sklearn"])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("standardised", [True, False])
@pytest.mark.parametrize("class_weight", ["none", "balanced"])
def test_every_backend_finds_the_minimum(
    backend: str, classes: int, standardised: bool, class_weight: str
) -> None:
    x, y, rows = problem(classes)
    moments = Scaler.of(x, rows) if standardised else None
    fits = solvers.solve(x, y, GRID, rows=rows, moments=moments, options=Settings(backend, class_weight))
    given = x[rows].astype(np.float64)
    prepared = (given - given.mean(axis=0)) / given.std(axis=0) if standardised else given
    assert fits.converged.all()
    assert fits.classes == classes
    for r, C in enumerate(GRID):
        model = LogisticRegression(
            C=C,
            solver="newton-cholesky",
            tol=1e-12,
            max_iter=1000,
            class_weight=None if class_weight == "none" else class_weight,
        ).fit(prepared, y[rows])
        best = measure(
            prepared,
            y[rows],
            [C],
            model.coef_[None],
            model.intercept_[None],
            balanced=class_weight == "balanced",
        )
        assert fits.objective[r] == pytest.approx(best.objective[0], rel=1e-6)
        found = fits.scores(x, r, rows)
        np.testing.assert_allclose(found, model.predict_proba(prepared), atol=1e-3)


@pytest.mark.parametrize("standardised", [True, False])
def test_every_backend_reports_the_judges_numbers(standardised: bool) -> None:
    x, y, rows = problem(4)
    moments = Scaler.of(x, rows) if standardised else None
    pair = None if moments is None else (moments.mean, moments.scale)
    for backend in ("batched", "sklearn"):
        fits = solvers.solve(x, y, GRID, rows=rows, moments=moments, options=Settings(backend))
        judged = measure(x, y, GRID, fits.coef, fits.intercept, rows=rows, standardise=pair)
        assert fits.objective == pytest.approx(judged.objective, rel=1e-9)
        assert fits.gradient_norm == pytest.approx(judged.gradient_norm, rel=1e-2, abs=1e-7)


@pytest.mark.parametrize("backend", ["batched", "sklearn"])
def test_findings_are_fitted_on_their_own_rows(backend: str) -> None:
    x, y, rows = problem(3)
    table = np.stack([y == 0, y == 1, y > 0], axis=1).astype(np.int8)
    table[::5, 1] = -1
    settings, moments = Settings(backend), Scaler.of(x, rows)
    fits = solvers.solve_many(x, table, GRID, rows=rows, moments=moments, options=settings)
    for at, each in enumerate(fits):
        kept = rows[table[rows, at] >= 0]
        alone = solvers.solve(x, table[:, at], GRID, rows=kept, moments=moments, options=settings)
        assert each.objective == pytest.approx(alone.objective, rel=1e-6)
        np.testing.assert_allclose(each.scores(x, 1), alone.scores(x, 1), atol=1e-3)


@pytest.mark.filterwarnings("error")
def test_what_was_stopped_has_not_converged(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, rows = problem(4)
    monkeypatch.setattr(solvers, "_MOST_ITERATIONS", 3)
    monkeypatch.setattr(solvers, "_MOST_STEPS", 1)
    fits = solvers.solve(x, y, GRID, rows=rows, moments=None, options=Settings())
    assert not fits.converged.all()
    assert (fits.iterations <= 4).all()


def test_separable_classes_at_extreme_C() -> None:
    """Where scikit-learn's L-BFGS alone calls a fit converged that lies far above the minimum."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 120)
    x = rng.normal(size=(120, 150)) + 0.5 * rng.normal(size=(3, 150))[y]
    C, rows = [1e-5, 1.0, 1e6], np.arange(120)
    settings = Settings("sklearn"), Settings("batched")
    one, other = (solvers.solve(x, y, C, rows=rows, moments=None, options=each) for each in settings)
    assert one.converged.all()
    assert one.objective == pytest.approx(other.objective, rel=1e-6)
    alone = LogisticRegression(C=1e6, tol=1e-9, max_iter=20_000).fit(x, y)
    far = measure(x, y, [1e6], alone.coef_[None], alone.intercept_[None])
    assert far.objective[0] > 1.001 * one.objective[2]
    assert far.slope[0] > 100 * solvers._CONVERGED


def test_only_convergence_warnings_are_taken() -> None:
    class Loud:
        def fit(self, x: np.ndarray, y: np.ndarray) -> None:
            warnings.warn("no", ConvergenceWarning, stacklevel=1)
            warnings.warn("overflow", RuntimeWarning, stacklevel=1)

    with pytest.warns(RuntimeWarning, match="overflow") as caught:
        assert not solvers.fit_quietly(Loud(), np.zeros((1, 1)), np.zeros(1))
    assert len(caught) == 1


def test_progress_is_told_over_all_tasks() -> None:
    x, y, rows = problem(3)
    table = np.stack([y == 0, y == 1], axis=1).astype(np.int8)
    told: list[tuple[int, int]] = []
    solvers.solve_many(
        x, table, GRID, rows=rows, moments=None, options=Settings(), on_progress=lambda *at: told.append(at)
    )
    assert told == [(done, 8) for done in range(1, 9)]


@pytest.mark.parametrize(("backend", "says"), [("cuml", "on cpu"), ("liblinear", "batched, sklearn, cuml")])
def test_refused(backend: str, says: str) -> None:
    x, y, rows = problem(2)
    with pytest.raises(Refused, match=says):
        solvers.solve(x, y, GRID, rows=rows, moments=None, options=Settings(backend))


@pytest.mark.skipif(importlib.util.find_spec("cuml") is not None, reason="cuML is installed")
def test_a_missing_cuml_is_refused_with_its_remedy() -> None:
    with pytest.raises(Refused, match=r"embank\[rapids\]"):
        solvers.cuml_modules("cuda:0")


@pytest.mark.parametrize("error", ["AttributeError('row_stack')", "OSError('libcuml')", "ImportError('x')"])
def test_a_cuml_that_cannot_be_imported_is_refused_with_its_remedy(
    error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cupy.py").write_text("")
    (tmp_path / "cuml").mkdir()
    (tmp_path / "cuml" / "__init__.py").write_text(f"raise {error}")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("cupy", "cuml", "cuml.linear_model"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(Refused, match=r"cannot be imported \(\w+: .*embank\[rapids\].*batched") as caught:
        solvers.cuml_modules("cuda:0")
    assert caught.value.exit_code == 2
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(runtime, "cuda_available", lambda: True)
    assert (doctor._cuml().status, error.partition("(")[0] in doctor._cuml().detail) == ("absent", True)


@pytest.mark.gpu(needs="cuml")
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("class_weight", ["none", "balanced"])
def test_cuml_finds_the_same_minimum(classes: int, class_weight: str) -> None:
    if importlib.util.find_spec("cuml") is None:  # where it is installed, an import that fails is a failure
        pytest.skip("cuML is not installed")
    x, y, rows = problem(classes)
    moments = Scaler.of(x, rows)
    found, expected = (
        solvers.solve(x, y, GRID, rows=rows, moments=moments, options=Settings(backend, class_weight, device))
        for backend, device in (("cuml", "cuda:0"), ("sklearn", "cpu"))
    )
    assert found.objective == pytest.approx(expected.objective, rel=1e-5)
    for r in range(len(GRID)):
        np.testing.assert_allclose(found.scores(x, r), expected.scores(x, r), atol=1e-2)
