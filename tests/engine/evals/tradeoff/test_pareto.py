"""The Pareto set against its definition, by search over all sets; order, ties, cycles and unknown costs."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.evals.tradeoff.pareto import Costs, cost_orders, kernel, pareto_set

CHEAP = Costs(100.0, 512, 1024, True)


def costs(rate: float = 100.0, dim: int = 512, size: int = 1024, commercial: bool | None = True) -> Costs:
    return Costs(rate, dim, size, commercial)


@st.composite
def studies(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[Costs]]:
    """Values with some pairs told apart, some not, some not tested; few costs, so that there are ties."""
    count = draw(st.integers(1, 7))
    values = draw(st.lists(st.integers(0, 5), min_size=count, max_size=count))
    better, alike = np.zeros((count, count), bool), np.zeros((count, count), bool)
    for a, b in itertools.combinations(range(count), 2):
        outcome = draw(st.sampled_from(("told", "alike", "untested")))
        if outcome == "told" and values[a] != values[b]:
            better[(a, b) if values[a] > values[b] else (b, a)] = True
        elif outcome == "alike":
            alike[a, b] = alike[b, a] = True
    rates = st.sampled_from((50.0, 100.0, 105.0, 112.0, 120.0, math.nan))
    one = st.builds(
        Costs, rates, st.sampled_from((1, 2)), st.sampled_from((1, 2)), st.sampled_from((True, False, None))
    )
    return better, alike, draw(st.lists(one, min_size=count, max_size=count))


def replaces(better: np.ndarray, alike: np.ndarray, priced: list[Costs], margin: float) -> np.ndarray:
    """The relation of the module's docstring, pair by pair."""
    related = np.zeros_like(better)
    known = any(math.isfinite(one.img_per_s) for one in priced)
    for a, b in itertools.permutations(range(len(priced)), 2):
        x, y = priced[a], priced[b]
        weak = [x.dim <= y.dim, x.bytes_per_row <= y.bytes_per_row]
        strict = [x.dim < y.dim, x.bytes_per_row < y.bytes_per_row]
        weak.append(x.commercial == y.commercial or x.commercial is True)
        strict.append(x.commercial is True and y.commercial is not True)
        if known:
            both = math.isfinite(x.img_per_s) and math.isfinite(y.img_per_s)
            weak.append(both and x.img_per_s * (1 + margin) >= y.img_per_s)
            strict.append(both and x.img_per_s > y.img_per_s * (1 + margin))
        related[a, b] = all(weak) and (better[a, b] or (alike[a, b] and any(strict)))
    return related


def kernels(related: np.ndarray) -> list[set[int]]:
    """All sets in which no member replaces another, and whose members replace all others."""
    count = len(related)
    found = []
    for size in range(1, count + 1):
        for chosen in itertools.combinations(range(count), size):
            inside = not related[np.ix_(chosen, chosen)].any()
            outside = [place for place in range(count) if place not in chosen]
            if inside and all(related[list(chosen), place].any() for place in outside):
                found.append(set(chosen))
    return found


@given(studies())
def test_with_exact_costs_it_is_the_only_kernel(study: tuple[np.ndarray, np.ndarray, list[Costs]]) -> None:
    better, alike, priced = study
    related = replaces(better, alike, priced, 0.0)
    result = pareto_set(better, alike, priced, margin=0.0)
    assert [set(np.flatnonzero(result.members))] == kernels(related)
    for place, by in enumerate(result.replaced_by):
        assert list(by) == (
            [] if result.members[place] else [m for m in np.flatnonzero(result.members) if related[m, place]]
        )


@given(studies(), st.randoms(use_true_random=False))
def test_the_order_does_not_matter_and_no_set_is_empty(
    study: tuple[np.ndarray, np.ndarray, list[Costs]], random: object
) -> None:
    better, alike, priced = study
    result = pareto_set(better, alike, priced)
    assert result.members.any()
    related = replaces(better, alike, priced, 0.1)
    for place in np.flatnonzero(~result.members):
        by = result.replaced_by[place]
        assert by and all(result.members[member] and related[member, place] for member in by)
    if kernels(related) and not _has_cycle(related):
        assert not related[np.ix_(result.members, result.members)].any()
    order = list(range(len(priced)))
    random.shuffle(order)  # type: ignore[attr-defined]
    again = pareto_set(better[np.ix_(order, order)], alike[np.ix_(order, order)], [priced[i] for i in order])
    np.testing.assert_array_equal(again.members, result.members[order])
    for place, by in zip(order, again.replaced_by, strict=True):
        assert {order[member] for member in by} == set(result.replaced_by[place])


def _has_cycle(related: np.ndarray) -> bool:
    power = related.astype(int)
    for _ in range(len(related)):
        if np.trace(power):
            return True
        power = np.minimum(power @ related.astype(int), 1)
    return False


def test_one_model_is_a_set() -> None:
    none = np.zeros((1, 1), bool)
    assert pareto_set(none, none, [costs(math.nan)]).members.tolist() == [True]


def told(count: int, *pairs: tuple[int, int]) -> np.ndarray:
    matrix = np.zeros((count, count), bool)
    for a, b in pairs:
        matrix[a, b] = True
    return matrix


def both(count: int, *pairs: tuple[int, int]) -> np.ndarray:
    return told(count, *pairs) | told(count, *pairs).T


def test_equal_models_of_equal_cost_both_stay() -> None:
    alike = both(2, (0, 1))
    assert pareto_set(told(2), alike, [CHEAP, CHEAP]).members.all()
    nearly = [costs(100), costs(109)]
    assert pareto_set(told(2), alike, nearly).members.all(), "within the margin"
    assert pareto_set(told(2), alike, nearly, margin=0.05).members.tolist() == [False, True]


def test_better_replaces_at_equal_cost_and_not_at_a_higher_one() -> None:
    better = told(2, (0, 1))
    assert pareto_set(better, both(2), [CHEAP, CHEAP]).replaced_by == ((), (0,))
    for dearer in (
        costs(rate=80),
        costs(dim=600),
        costs(size=2048),
        costs(commercial=False),
        costs(commercial=None),
    ):
        assert pareto_set(better, both(2), [dearer, CHEAP]).members.all()
    assert pareto_set(better, both(2), [costs(commercial=None), costs(commercial=False)]).members.all()


def test_an_unknown_rate_excludes_nobody_unless_all_are_unknown() -> None:
    better, unknown = told(2, (0, 1)), costs(math.nan)
    assert pareto_set(better, both(2), [CHEAP, unknown]).members.all()
    assert pareto_set(better, both(2), [unknown, CHEAP]).members.all()
    assert pareto_set(better, both(2), [unknown, unknown]).members.tolist() == [True, False]


def test_models_that_were_not_tested_stay() -> None:
    assert pareto_set(told(2), both(2), [CHEAP, costs(rate=1, dim=9999)]).members.all()


def test_a_model_that_only_a_replaced_one_replaces_stays() -> None:
    """B is better than C for no more; A, cheaper than B, cannot be told from B, and is told worse than C."""
    a, b, c = costs(rate=400), costs(rate=200), costs(rate=190)
    result = pareto_set(told(3, (1, 2), (2, 0)), both(3, (0, 1)), [a, b, c])
    assert result.members.tolist() == [True, False, True] and result.replaced_by[1] == (0,)


def test_models_of_a_cycle_stay_together() -> None:
    """A is told better than B and B than C, each a little slower; C is faster than A and not told from it."""
    priced = [costs(100), costs(108), costs(115), costs(90)]
    better = told(4, (0, 1), (1, 2), (2, 3))
    result = pareto_set(better, both(4, (0, 2)), priced)
    related = replaces(better, both(4, (0, 2)), priced, 0.1)
    assert related[0, 1] and related[1, 2] and related[2, 0], "a cycle"
    assert result.members.tolist() == [True, True, True, False] and result.replaced_by[3] == (2,)
    assert kernel(np.zeros((3, 3), bool)).members.all()


@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_costs_are_ordered_as_defined(margin: float) -> None:
    priced = [costs(), costs(105), costs(dim=256), costs(commercial=False), costs(math.nan)]
    cheap, cheaper = cost_orders(priced, margin)
    everything = replaces(np.ones((5, 5), bool), np.zeros((5, 5), bool), priced, margin)
    np.testing.assert_array_equal(cheap & ~np.eye(5, dtype=bool), everything)
    tested = replaces(np.zeros((5, 5), bool), np.ones((5, 5), bool), priced, margin)
    np.testing.assert_array_equal(cheap & cheaper, tested)
