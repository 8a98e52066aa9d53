"""Holm, letters and rank intervals: published examples, definitions, and all cases of hypothesis."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels.paired.holm import holm
from engine.kernels.paired.letters import letters
from engine.kernels.paired.ranks import rank_intervals


def test_holm_by_hand() -> None:
    """R's `p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")`."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, np.nan, 0.7])[[0, 2]] == pytest.approx([1, 1])
    assert np.isnan(holm([0.6, np.nan])[1]) and holm([]).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_the_step_down_procedure_rejects(p: list[float]) -> None:
    adjusted, level = holm(p), 0.05
    rejected = np.zeros(len(p), bool)
    for step, place in enumerate(np.argsort(p, kind="stable")):
        if p[place] * (len(p) - step) > level:
            break
        rejected[place] = True
    assert ((adjusted <= level) == rejected).all()
    assert (adjusted >= p).all()


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 8), st.data())
def test_letters_are_shared_exactly_by_models_that_are_not_different(
    models: int, data: st.DataObject
) -> None:
    upper = np.triu_indices(models, 1)
    different = np.zeros((models, models), bool)
    different[upper] = data.draw(st.lists(st.booleans(), min_size=len(upper[0]), max_size=len(upper[0])))
    different |= different.T
    shown = letters(different)
    assert shown[0].startswith("a")
    for a in range(models):
        for b in range(models):
            assert bool(set(shown[a]) & set(shown[b])) == (a == b or not different[a, b])
    used = sorted(set("".join(shown)))
    for letter in used:  # none is superfluous
        members = {m for m in range(models) if letter in shown[m]}
        others = [{m for m in range(models) if other in shown[m]} for other in used if other != letter]
        assert not any(members <= other for other in others)


def test_letters_of_a_chain() -> None:
    """Neighbours cannot be told apart, others can: the classical a, ab, b."""
    different = np.array([[0, 0, 1], [0, 0, 0], [1, 0, 0]], bool)
    assert letters(different) == ("a", "ab", "b")


def test_more_models_than_letters() -> None:
    shown = letters(~np.eye(30, dtype=bool))
    assert len(set(shown)) == 30 and shown[25:28] == ("z", "a1", "b1")


@given(st.integers(0, 10_000), st.integers(2, 7))
def test_rank_intervals_hold_the_rank_and_count_models(seed: int, models: int) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(size=models)
    differences = values[:, None] - values
    different = np.triu(random.random((models, models)) < 0.5, 1)
    different |= different.T
    low, high = rank_intervals(differences, different)
    rank = 1 + (values[:, None] < values).sum(axis=1)
    assert (low <= rank).all() and (rank <= high).all()
    for model in range(models):
        assert low[model] == 1 + sum(different[model] & (values > values[model]))
        assert high[model] == models - sum(different[model] & (values < values[model]))
