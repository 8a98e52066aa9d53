"""Choosing C: the grid, ties, and scores against scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from engine.errors import Refused
from engine.evals.probe.selection import choose, grid, quality


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


FITS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3), st.booleans()), min_size=1, max_size=20)


@given(FITS, st.randoms(use_true_random=False))
def test_of_equal_scores_the_better_log_loss_wins_then_the_larger_c(fits: list, shuffled: object) -> None:
    """Against Python's sort of tuples."""
    C = [10.0**i for i in range(len(fits))]
    shuffled.shuffle(C)  # type: ignore[attr-defined]
    scores, losses, constant = (list(each) for each in zip(*fits, strict=True))
    for select, sign in (("auroc", 1), ("log-loss", -1)):
        keys = [(not k, sign * s, -b, c) for s, b, k, c in zip(scores, losses, constant, C, strict=True)]
        assert choose(C, scores, select, losses, constant) == keys.index(max(keys))
        keys = [(sign * s, c) for s, c in zip(scores, C, strict=True)]
        assert (
            choose(C, scores, select) == choose(C, scores, select, [np.nan] * len(C)) == keys.index(max(keys))
        )


def test_scores_that_differ_by_rounding_are_equal() -> None:
    third = 1 / 3
    assert choose([1, 2, 3], [third + 1e-16, third - 1e-16, 0.2], "auroc", [0.9, 0.3, 0.1]) == 1
    assert choose([1, 2], [0.5, 0.5 - 1e-9], "auroc", [0.9, 0.1]) == 0, "a pair of 10^9 is a difference"


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
