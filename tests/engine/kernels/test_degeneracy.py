"""Constant dimensions, spread and nearly equal rows against numpy in float64."""

import math

import numpy as np
import pytest

from engine.kernels.degeneracy import constant_dimensions, evenly_spaced, near_pairs, relative_spread


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_constant_dimensions_are_those_without_a_range(dtype: type) -> None:
    x = np.random.default_rng(0).normal(size=(300, 12)).astype(dtype)
    x[:, [2, 5]] = dtype(0.3)
    x[:, 7] = 1.0
    x[299, 7] = 2.0  # constant but for one row, which no sample below has
    x[50] = np.nan
    rows = np.delete(np.arange(300), 50)
    sample = x[evenly_spaced(rows, 10)].astype(np.float64)
    assert 299 not in evenly_spaced(rows, 10)
    expected = int((np.ptp(x[rows].astype(np.float64), axis=0) == 0).sum())
    assert constant_dimensions(x, rows, sample) == expected == 2


def test_evenly_spaced_rows_are_different_and_in_order() -> None:
    rows = np.arange(0, 70, 7)
    assert evenly_spaced(rows, 10) is rows and evenly_spaced(rows, 99) is rows
    assert evenly_spaced(rows, 5).tolist() == [0, 14, 28, 42, 56]
    for most in (1, 3, 9):
        taken = evenly_spaced(rows, most)
        assert len(set(taken.tolist())) == most and (np.diff(taken) > 0).all()


def test_the_spread_is_the_root_of_variance_over_square_length() -> None:
    x = np.random.default_rng(1).normal(5.0, 2.0, (80, 6))
    expected = math.sqrt(x.var(axis=0).sum() / (x**2).sum(axis=1).mean())
    assert relative_spread(x) == pytest.approx(expected, rel=1e-12)
    assert relative_spread(np.full((4, 3), 7.0)) == 0 and math.isnan(relative_spread(np.zeros((4, 3))))
    assert relative_spread(x - x.mean(axis=0)) == pytest.approx(1)


def test_near_pairs_are_those_of_a_plain_loop_without_the_common_mean() -> None:
    rng = np.random.default_rng(2)
    x = (100.0 + rng.normal(size=(60, 20))).astype(np.float32)  # the mean hides all differences
    x[40] = x[3] + rng.normal(0, 0.02, 20)
    x[41], x[42] = x[8], np.nan
    rows = np.delete(np.arange(60), 42)
    z = x[rows].astype(np.float64) - x[rows].astype(np.float64).mean(axis=0)
    z /= np.linalg.norm(z, axis=1)[:, None]
    plain = {(int(rows[i]), int(rows[j])) for i in range(59) for j in range(i + 1, 59) if z[i] @ z[j] >= 0.99}
    assert {tuple(pair) for pair in near_pairs(x, rows, 0.99, 10).tolist()} == plain == {(3, 40), (8, 41)}
    assert near_pairs(x, rows, 0.99, 1).tolist() == [[8, 41]]
