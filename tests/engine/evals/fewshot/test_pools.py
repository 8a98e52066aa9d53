"""Pools against a plain loop over rows: of all classes, of the study's first images, and with a cap."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.evals.fewshot import pools
from engine.evals.fewshot.options import Protocol
from engine.evals.fewshot.pools import pools_of, resolved
from engine.kernels.codes import rows_by_code


def _smallest(rows: list[int], numbers: np.ndarray, count: int) -> list[int]:
    return sorted(sorted(rows, key=lambda row: numbers[row])[:count])


@given(
    codes=st.lists(st.sampled_from([-1, 0, 1, 2, 70_000, 2**62]), max_size=60),
    seed=st.integers(0, 99),
    chosen=st.sampled_from(["all", "as-published", 3, 40]),
    most=st.sampled_from([5, 1000]),
)
@settings(max_examples=100, deadline=None)
def test_pools_are_those_of_a_loop(codes: list[int], seed: int, chosen: str | int, most: int) -> None:
    cap, published = chosen if isinstance(chosen, int) else None, chosen == "as-published"
    mode = "as-published" if published else "default"
    protocol = Protocol(n_way=2, n_shot=1, n_query=1, seed=seed, cap=cap, mode=mode)
    total, identity = len(codes), protocol.identity("set")
    rows = [row for row, code in enumerate(codes) if code >= 0]
    usable = rows
    if published:
        usable = _smallest(rows, identity.stream("pool").uniform(total), most)
    expected = {
        code: [row for row in usable if codes[row] == code] for code in sorted({codes[r] for r in usable})
    }
    if cap is not None:
        numbers = identity.stream("cap").uniform(total)
        expected = {code: _smallest(part, numbers, cap) for code, part in expected.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pools, "PUBLISHED_POOL", most)
        of_class = rows_by_code(np.array(codes, np.int64), np.array(rows, np.intp))
        found = pools_of(of_class, np.array(codes, np.int64), protocol, "set")
    assert [(code, part.tolist()) for code, part in found.items()] == list(expected.items())


@pytest.mark.parametrize(("sizes", "ways"), [([9, 9, 9], 3), ([9, 1, 9], 2), ([9] * 8, 5), ([1], 2), ([], 2)])
def test_ways_are_the_large_classes_up_to_five(sizes: list[int], ways: int) -> None:
    assert resolved(Protocol(n_shot=4, n_query=3), None, sizes)[0].ways == ways
