"""The study's loop, written out with scikit-learn, against `published`."""

import warnings

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from engine.evals.probe.parts import Parts, published_validation
from engine.evals.probe.study_protocol import WEIGHT_DECAY, Published, published, strength
from engine.kernels.logistic.objective import measure
from tests.engine.evals.probe.test_solvers import Settings

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.slow]


def digits(classes: int) -> tuple[np.ndarray, np.ndarray, Parts]:
    """Digits with noise, as float16 as a bank has them; parts as the study cut them."""
    x, y = load_digits(return_X_y=True)
    x, y = x[y < classes][:700], y[y < classes][:700]
    x = (x + np.random.default_rng(0).normal(0, 5, x.shape)).astype(np.float16)
    train = np.arange(int(0.8 * len(y)))
    order = published_validation(len(train))
    held = int(0.2 * len(train))
    test = np.arange(len(train), len(y))
    return x, y, Parts(train[order[held:]], train[order[:held]], test, {})


def looped(x: np.ndarray, y: np.ndarray, parts: Parts, score) -> tuple[list, list, int, float]:
    """(validation scores, iterations, best position, test score), one call after another."""
    x = x.astype(np.float32)
    binary = len(np.unique(y)) == 2
    model = LogisticRegression(max_iter=100, warm_start=True)
    scores, iterations, best, best_score = [], [], 0, -1.0
    grid = np.logspace(-6, 5, 45).tolist()  # numpy's float64 would turn the fit into one in float64
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for at, decay in enumerate(grid):
            model.set_params(C=(2 if binary else 1) / decay, tol=1e-4 / len(parts.train))
            model.fit(x[parts.train], y[parts.train])
            scores.append(score(y[parts.val], model.predict(x[parts.val])))
            iterations.append(int(model.n_iter_[0]))
            if scores[-1] > best_score:
                best, best_score = at, scores[-1]
        both = np.concatenate([parts.train, parts.val])
        model.set_params(C=(2 if binary else 1) / grid[best], tol=1e-4 / len(both)).fit(x[both], y[both])
    return scores, iterations, best, score(y[parts.test], model.predict(x[parts.test]))


@pytest.fixture(scope="module")
def ten() -> Published:
    x, y, parts = digits(10)
    return published(x, y, 10, parts, compare=Settings("batched"))


@pytest.mark.parametrize(
    ("classes", "metric"), [(10, "accuracy"), (2, "accuracy"), (6, "mean_per_class_accuracy")]
)
def test_it_is_the_loop(classes: int, metric: str, ten: Published) -> None:
    x, y, parts = digits(classes)
    found = ten if classes == 10 else published(x, y, classes, parts, metric=metric)
    score = accuracy_score if metric == "accuracy" else balanced_accuracy_score
    scores, iterations, best, test = looped(x, y, parts, score)
    assert [each.val_score for each in found.sweep] == pytest.approx(scores, abs=1e-12)
    assert [each.iterations for each in found.sweep] == iterations
    assert found.best == best
    assert found.best_C == pytest.approx(1 / np.logspace(-6, 5, 45)[best])
    assert found.test.headline[metric] == pytest.approx(test, abs=1e-12)


def test_convergence_is_recorded(ten: Published) -> None:
    stopped = [each for each in ten.sweep if each.stopped]
    assert stopped
    assert all(each.iterations == 100 for each in stopped)
    assert all(each.iterations < 100 for each in ten.sweep if not each.stopped)
    assert min(each.excess for each in ten.sweep) > -1e-6
    assert max(each.excess for each in stopped) > 1e-4
    assert not any(each.converged for each in stopped)
    far = [each for each in ten.sweep if not each.converged]
    assert {each.excess > 1e-6 or each.stopped for each in far} == {True}
    assert f"{len(far)} did not converge" in ten.convergence
    assert ten.convergence.startswith(f"{len(stopped)} of 45 fits were stopped")
    assert "above" in ten.convergence


def test_without_comparison_nothing_is_claimed() -> None:
    x, y, parts = digits(2)
    found = published(x, y, 2, parts)
    assert all(np.isnan(each.excess) for each in found.sweep)
    assert "above" not in found.convergence


def test_of_equal_scores_the_weakest_regularisation_wins() -> None:
    x, y, parts = digits(2)
    x = x * 0
    x[:, 0] = np.where(y == 1, 50, -50)
    found = published(x, y, 2, parts)
    assert found.sweep[0].val_score == 1.0
    assert found.best == 0
    assert found.best_C == pytest.approx(1e6)


def test_a_class_that_only_validation_has_joins_the_final_fit() -> None:
    x, y, parts = digits(3)
    y = y.copy()
    y[parts.train[y[parts.train] == 2]] = 1
    found = published(x, y, 4, parts)
    assert found.unseen == (3,)
    assert (found.probabilities[:, 3] == 0).all()
    assert found.probabilities[:, 2].max() > 0.5


def test_two_weight_vectors_at_C_are_one_at_2C() -> None:
    """The multinomial form, minimised by itself, gives the probabilities of the binary fit at `strength`."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60)
    x = rng.normal(size=(60, 3)) + y[:, None]
    C = 0.7

    def multinomial(flat: np.ndarray) -> float:
        w, b = flat[:6].reshape(2, 3), flat[6:]
        z = x @ w.T + b
        return 0.5 * (w**2).sum() + C * (logsumexp(z, axis=1) - z[np.arange(60), y]).sum()

    flat = minimize(multinomial, np.zeros(8), method="BFGS", options={"gtol": 1e-7}).x
    z = x @ flat[:6].reshape(2, 3).T + flat[6:]
    model = LogisticRegression(C=strength(1 / C, 2), tol=1e-10).fit(x, y)
    np.testing.assert_allclose(
        np.exp(z - logsumexp(z, axis=1, keepdims=True)), model.predict_proba(x), atol=1e-5
    )


def test_the_grid_is_the_studys() -> None:
    assert len(WEIGHT_DECAY) == 45
    assert WEIGHT_DECAY[0] == pytest.approx(1e-6)
    assert WEIGHT_DECAY[-1] == pytest.approx(1e5)
    assert 1 / WEIGHT_DECAY[9] == pytest.approx(5623.413, rel=1e-6)  # a C that the study reports


def test_objectives_are_those_of_the_fits(ten: Published) -> None:
    x, y, parts = digits(10)
    model = LogisticRegression(C=1 / WEIGHT_DECAY[-1], tol=1e-10, max_iter=5000)
    model.fit(x[parts.train].astype(float), y[parts.train])
    least = measure(x, y, [model.C], model.coef_[None], model.intercept_[None], rows=parts.train)
    assert ten.sweep[-1].objective == pytest.approx(least.objective[0], rel=1e-3)
