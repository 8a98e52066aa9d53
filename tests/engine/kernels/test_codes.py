"""Rows by code against plain loops, for codes as large as an int64 has."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import Refused
from engine.kernels.codes import fill_singletons, in_order, rows_by_code
from engine.kernels.intervals.cluster_robust import compact_groups
from engine.kernels.logistic.labels import count_classes

LARGEST = 2**63 - 1
#: Few enough that some occur twice, with those at the limits of a table, of a half word and of a word.
CODES = st.one_of(
    st.integers(0, 9), st.integers(2**31 - 2, 2**31 + 2), st.integers(2**62 - 2, 2**62 + 2),
    st.integers(LARGEST - 2, LARGEST),
)  # fmt: skip
KINDS = st.sampled_from([np.int64, np.int32, np.int16, np.uint8])


def _codes(data: st.DataObject, codes: st.SearchStrategy[int]) -> np.ndarray:
    drawn, kind = data.draw(st.lists(codes, max_size=40)), data.draw(KINDS)
    return np.array([code for code in drawn if code <= np.iinfo(kind).max], kind)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_rows_of_each_code_are_those_of_a_loop(data: st.DataObject) -> None:
    codes = _codes(data, CODES)
    rows = np.flatnonzero(data.draw(st.lists(st.booleans(), min_size=len(codes), max_size=len(codes))))
    expected: dict[int, list[int]] = {code: [] for code in sorted(set(codes[rows].tolist()))}
    for row in rows.tolist():
        expected[int(codes[row])].append(row)
    before, found = codes.copy(), rows_by_code(codes, rows)
    assert list(found) == list(expected)
    assert all(part.dtype == np.int64 and part.tolist() == expected[code] for code, part in found.items())
    assert codes.tolist() == before.tolist()


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_the_order_is_the_stable_one(data: st.DataObject) -> None:
    codes = _codes(data, CODES)
    assert in_order(codes).tolist() == sorted(range(len(codes)), key=lambda row: codes[row])


@given(st.lists(st.one_of(CODES, st.integers(-(2**63), -1), st.just(-1)), max_size=40))
@settings(max_examples=200, deadline=None)
def test_groups_stay_and_single_rows_are_alone(given_codes: list[int]) -> None:
    found = fill_singletons(np.array(given_codes, np.int64)).tolist()
    for (a, b), (x, y) in zip(
        itertools.combinations(given_codes, 2), itertools.combinations(found, 2), strict=True
    ):
        assert (x == y) == (a == b >= 0)
        assert a < 0 or b < 0 or (x < y) == (a < b)
    assert all(0 <= code < 5 * len(given_codes) for code in found), "tables of codes stay small"
    dense = compact_groups(np.array(given_codes, np.int64))
    assert sorted(set(dense.tolist())) == list(range(len(set(found))))


def test_single_rows_without_groups_are_numbered_from_0() -> None:
    assert fill_singletons(np.array([-1, -1])).tolist() == [0, 1]


@pytest.mark.parametrize("classes", [[0, 1, 2**62], [2**62, LARGEST], [0, 2, 3]])
def test_a_class_without_rows_is_named_whatever_the_largest(classes: list[int]) -> None:
    first = next(c for c in itertools.count() if c not in classes)
    with pytest.raises(Refused, match=rf"class {first} without rows"):
        count_classes(np.array(classes))
