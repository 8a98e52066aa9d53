"""Intervals against scipy and closed forms."""

import numpy as np
import pytest
from scipy import stats

from engine.kernels.episodes import Identity
from engine.kernels.intervals import over_episodes, over_groups, paired


def test_over_episodes_is_the_normal_interval() -> None:
    values = np.random.default_rng(0).random(600)
    found = over_episodes(values)
    assert found.mean == pytest.approx(values.mean())
    assert found.ci95 == pytest.approx(1.96 * stats.sem(values), rel=1e-12)
    assert over_episodes(values, population=True).ci95 == pytest.approx(1.96 * values.std() / np.sqrt(600))


def test_paired_is_of_the_differences() -> None:
    generator = np.random.default_rng(0)
    hard = generator.random(400)
    a, b = hard + 0.02 + 0.01 * generator.random(400), hard
    found = paired(a, b)
    assert found.mean == pytest.approx((a - b).mean())
    assert found.ci95 < over_episodes(a).ci95 / 10


def test_the_bootstrap_is_as_wide_as_theory_says() -> None:
    """Patients of equal size: the mean over patients has the standard error of independent draws."""
    generator = np.random.default_rng(0)
    right = generator.binomial(1, 0.7, 400)  # a patient is right or wrong with all of 5 images
    groups, correct, asked = np.repeat(np.arange(400), 5), np.repeat(right, 5), np.ones(2000, int)
    stream = Identity(0, "", 2, 1, 1).stream("bootstrap")
    found = over_groups(correct, asked, groups, 4000, stream)
    assert (found.groups, found.resamples) == (400, 4000)
    wanted = 2 * 1.96 * right.std() / np.sqrt(400)
    assert found.high - found.low == pytest.approx(wanted, rel=0.08)
    assert (found.low + found.high) / 2 == pytest.approx(right.mean(), abs=0.01)


def test_images_never_asked_do_not_count() -> None:
    stream = Identity(0, "", 2, 1, 1).stream("bootstrap")
    found = over_groups(np.array([2, 0, 0]), np.array([2, 0, 0]), np.array([0, 1, 2]), 10, stream)
    assert (found.low, found.high, found.groups) == (1.0, 1.0, 1)
