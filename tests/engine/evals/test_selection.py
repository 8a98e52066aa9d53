"""Choosing C: the grid, ties, and scores against scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from engine.errors import Refused
from engine.evals.selection import choose, grid, quality


def test_the_grid_is_the_study_s_upside_down() -> None:
    study = 1 / np.logspace(-6, 5, 45)
    np.testing.assert_allclose(grid(), study[::-1], rtol=1e-11)
    assert grid()[0] == 1e-5 and grid()[-1] == 1e6 and 1.0 in grid()
    assert grid(2.0, 2.0, 1) == (2.0,)


@pytest.mark.parametrize(
    "bounds", [(0, 1, 3), (2, 1, 3), (1, float("inf"), 3), (1, 2, 1), (1, 1, 2), (1, 2, 0)]
)
def test_other_grids_are_refused(bounds: tuple) -> None:
    with pytest.raises(Refused):
        grid(*bounds)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_the_best_wins_and_of_equals_the_strongest(values: list[int], shuffled: object) -> None:
    """Against the loop that goes from strong to weak and takes what is strictly better."""
    C = [10.0**i for i in range(len(values))]
    shuffled.shuffle(C)  # type: ignore[attr-defined]
    for select, sign in (("accuracy", 1), ("log-loss", -1)):
        best, winner = -np.inf, -1
        for at in sorted(range(len(C)), key=C.__getitem__):
            if sign * values[at] > best:
                best, winner = sign * values[at], at
        assert choose(C, values, select) == winner


def test_scores_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 80)
    given = rng.dirichlet(np.ones(3), 80)
    guess = given.argmax(axis=1)
    expected = {
        "accuracy": oracle.accuracy_score(truth, guess),
        "mean-per-class": oracle.balanced_accuracy_score(truth, guess),
        "auroc": oracle.roc_auc_score(truth, given, multi_class="ovr"),
        "log-loss": oracle.log_loss(truth, given),
    }
    for select, value in expected.items():
        assert quality(truth, given, select) == (pytest.approx(value, rel=1e-12), "")


def test_classes_that_a_fit_does_not_know() -> None:
    """They have no place in the AUROC, make the log loss undefined, and count as wrong."""
    rng = np.random.default_rng(1)
    truth = np.repeat([0, 1, 2], 20)
    given = np.zeros((60, 3))
    given[:, :2] = rng.dirichlet(np.ones(2), 60)
    area, reason = quality(truth, given, "auroc", [2])
    pairs = [oracle.roc_auc_score(truth == c, given[:, c]) for c in (0, 1)]
    assert area == pytest.approx(np.mean(pairs)) and "2 of 3" in reason
    loss, reason = quality(truth, given, "log-loss", [2])
    assert np.isnan(loss) and "20 rows" in reason
    assert quality(truth, given, "accuracy", [2])[0] <= 2 / 3
