"""One encoder of labels: what any array-like holds, in every evaluation alike."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from engine.errors import Refused
from engine.evals.common.labels import group_codes, label_codes
from engine.evals.fewshot.evaluate import Protocol, fewshot
from engine.evals.neighbours.knn import KnnOptions, knn
from engine.evals.probe.evaluate import ProbeOptions, probe
from stores.manifest.measures import measured

WORDS = ["b", "a", "b", None]
#: The same four labels, the last one missing, in the forms that users have.
TEXTS = {
    "list": WORDS,
    "tuple": ("b", "a", "b", ""),
    "str array": np.array(["b", "a", "b", ""]),
    "bytes": np.array([b"b", b"a", b"b", b""]),
    "object": np.array(["b", "a", "b", float("nan")], object),
    "series": pd.Series(["b", "a", "b", pd.NA], dtype="string"),
    "categories": pd.Categorical(WORDS, categories=["b", "a"]),
    "arrow": pa.array(WORDS),
    "masked": np.ma.array(["b", "a", "b", "a"], mask=[False, False, False, True]),
    "untidy": ["b ", "a\u200b", "\u00a0b", "None"],
}
NUMBERS = {
    "list": [7, 2, 7, -1],
    "int8": np.array([7, 2, 7, -5], np.int8),
    "float": np.array([7.0, 2.0, 7.0, np.nan], np.float32),
    "object": np.array([7, 2, 7, None], object),
    "nullable": pd.Series([7, 2, 7, None], dtype="Int64"),
    "masked": np.ma.array([7, 2, 7, 3], mask=[False, False, False, True]),
}


@pytest.mark.parametrize("form", TEXTS)
def test_texts_get_codes_in_the_order_of_their_names(form: str) -> None:
    found = label_codes(TEXTS[form])
    assert (found.codes.tolist(), found.names, found.codes.dtype) == ([1, 0, 1, -1], ("a", "b"), np.int64)


@pytest.mark.parametrize("form", NUMBERS)
def test_numbers_stand_for_themselves(form: str) -> None:
    found = label_codes(NUMBERS[form])
    assert (found.codes.tolist(), found.names, found.codes.dtype) == ([7, 2, 7, -1], None, np.int64)


def test_unsigned_numbers_booleans_dates_and_tensors() -> None:
    assert label_codes(np.array([3, 0, 3], np.uint64)).codes.tolist() == [3, 0, 3]
    assert label_codes([True, False, True]).codes.tolist() == [1, 0, 1]
    found = group_codes(np.array(["2020-01-01", "NaT", "2019-01-01"], "datetime64[D]"))
    assert (found.codes.tolist(), found.names) == ([1, -1, 0], ("2019-01-01", "2020-01-01"))


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([[1, 2], [3, 4]], "shape (2, 2)"),
        ([[1], [2, 3]], "unequal length"),
        ([0.5, 1.0, 1.0], "0.5"),
        ([1.0, np.inf], "inf"),
        ([2.0**60, 1.0], "1.15"),
        (np.array([2**63, 1], np.uint64), "9223372036854775808"),
        (np.array([1j, 2]), "complex"),
        (np.array([{}, {}], object), "dict"),
    ],
)
def test_what_names_no_class_is_refused(labels: Any, says: str) -> None:
    with pytest.raises(Refused) as error:
        label_codes(labels)
    assert says in str(error.value) and error.value.remedy


def test_a_measurement_is_no_class() -> None:
    """As many numbers as images, or nearly; not so texts, few values, or numbers of patients as groups."""
    ages = [f"{20 + row / 7:.2f}" for row in range(40)]
    for labels in (np.arange(100), ages, [str(row) for row in range(100)], [*range(99), 98]):
        with pytest.raises(Refused, match="measurement") as error:
            label_codes(labels)
        assert "ranges" in error.value.remedy
    for fine in ([0, 1], [0, 1, 2, 0], np.arange(100) // 2, [f"name {row}" for row in range(100)]):
        label_codes(fine)
    assert group_codes(np.arange(100)).codes.tolist() == list(range(100))
    assert measured([*map(str, np.linspace(0, 1, 30))], 59) and not measured([*map(str, range(30))], 59)
    assert not measured([*map(str, np.linspace(0, 1, 30))], 60)


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    return rng.normal(size=(90, 6)) + 2 * np.eye(6)[labels], labels


def test_every_evaluation_takes_texts_as_it_takes_numbers(data: tuple[np.ndarray, np.ndarray]) -> None:
    """The same classes under names give the same numbers; so do groups."""
    x, y = data
    part = np.arange(90) % 3
    names = np.array(["ant", "bee", "cow"])[y].astype(object)
    groups = np.arange(90) // 3
    who = [f"p{group:02}" for group in groups]
    y, names = y.copy(), names.copy()
    y[5], names[5] = -1, None

    def scores(labels: Any, groups: Any) -> list[float]:
        neighbours = knn(x, labels, KnnOptions(k=(5,), group_disjoint=True), groups=groups)
        fitted = probe(
            x, labels, train=part == 0, val=part == 1, test=part == 2, groups=groups,
            options=ProbeOptions(C=(0.1, 1.0), bootstrap=50),
        )  # fmt: skip
        protocol = Protocol(n_way=3, n_shot=2, n_query=3, episodes=20, group_disjoint=True)
        shots = fewshot(x, labels, protocol, groups=groups)
        interval = fitted.intervals["accuracy"]
        counts = (neighbours.masked["unlabelled"], fitted.task.parts.masked["unlabelled"], shots.masked)
        return [
            neighbours.by_k[5].accuracy,
            fitted.test.headline["accuracy"],
            interval.low,
            shots.accuracy,
            *counts,
        ]

    plain = scores(y, groups)
    assert plain[-3:] == [1, 1, 1]
    assert scores(names, who) == plain
    assert knn(x, names, KnnOptions(k=(5,))).names == ("ant", "bee", "cow")
