"""Splits by group depend on names and seed alone; the study's are those of NumPy and pandas."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.datasets import _splits
from engine.errors import Refused

NAMES = st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=40)


@given(names=NAMES, seed=st.integers(0, 5), data=st.data())
def test_a_group_has_one_side_whatever_stands_around_it(
    names: list[str], seed: int, data: st.DataObject
) -> None:
    series = pd.Series(names, dtype=object)
    sides = dict(zip(names, _splits.by_group(series, seed, 0.3), strict=True))
    assert list(_splits.by_group(series, seed, 0.3)) == [sides[name] for name in names]
    order = data.draw(st.permutations(range(len(names))))
    part = order[: data.draw(st.integers(1, len(names)))]
    again = _splits.by_group(series.iloc[part], seed, 0.3)
    assert list(again) == [sides[names[row]] for row in part]


def test_share_and_seeds() -> None:
    names = pd.Series([f"patient{n:05d}" for n in range(20000)])
    first, second = (_splits.by_group(names, seed, 0.2) == "test" for seed in (0, 1))
    for found, truth in ((first.mean(), 0.2), (second.mean(), 0.2), ((first & second).mean(), 0.04)):
        assert abs(found - truth) < 4 * np.sqrt(truth * (1 - truth) / len(names))
    assert (_splits.by_group(names, 0, 0.0) == "train").all()
    assert (_splits.by_group(names, 0, 1.0) == "test").all()


@pytest.mark.parametrize("rows", [1, 2, 138, 400, 10007])
def test_the_studys_shuffle_is_that_of_pandas(rows: int) -> None:
    frame = pd.DataFrame({"row": np.arange(rows)})
    truth = frame.sample(frac=1, random_state=42)["row"]
    np.testing.assert_array_equal(_splits.published_order(rows), truth)
    split = _splits.published_split(frame)
    np.testing.assert_array_equal(split["row"], truth)
    assert int((split["split"] == "train").sum()) == int(0.8 * rows)


def test_soft_targets_depend_on_name_and_seed() -> None:
    names = pd.Series([f"image{n}" for n in range(5000)])
    draws = _splits.soft_targets(names, 0, 0.55, 0.85)
    assert draws.min() >= 0.55 and draws.max() < 0.85
    assert abs(draws.mean() - 0.7) < 4 * 0.3 / np.sqrt(12 * len(names))
    np.testing.assert_array_equal(_splits.soft_targets(names[::-1], 0, 0.55, 0.85), draws[::-1])
    assert abs(np.corrcoef(draws, _splits.soft_targets(names, 1, 0.55, 0.85))[0, 1]) < 0.06


@pytest.mark.parametrize("text", ["", "-1", "1.5", "one", "١"])
def test_bad_seeds(text: str) -> None:
    with pytest.raises(Refused, match="whole number"):
        _splits.seed_of(text)
