"""knn on arrays: what users get without a bank."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import Refused
from engine.evals.knn import KnnOptions, knn


def data(n: int = 200, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    return (rng.normal(0, 1, (n, 8)) + 1.2 * np.eye(8)[labels]).astype(np.float32), labels


HALVES = {"train": np.arange(200) % 2 == 0, "test": np.arange(200) % 2 == 1}


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), distance=st.sampled_from(["cosine", "euclidean"]))
def test_order_of_rows_names_of_classes_and_scale_do_not_matter(seed: int, distance: str) -> None:
    x, y = data(seed=seed)
    options = KnnOptions(k=(1, 7), distance=distance, backend="array")
    rows, names = np.random.default_rng(seed).permutation(200), np.array([41, 7, 300])
    plain = knn(x, y, options).by_k
    moved = knn(x[rows] * 4, names[y[rows]], options).by_k
    for k in (1, 7):
        if distance == "cosine":  # uniform votes tie, and then the names decide
            assert moved[k].accuracy == pytest.approx(plain[k].accuracy)
        assert moved[k].auroc == pytest.approx(plain[k].auroc, abs=1e-9)


def test_copies_of_every_row_make_leave_one_out_perfect() -> None:
    x, y = data()
    found = knn(np.concatenate([x, x]), np.concatenate([y, y]), KnnOptions(k=(1,)))
    assert found.by_k[1].accuracy == 1.0
    groups = np.tile(np.arange(200), 2)
    options = KnnOptions(k=(1,), group_disjoint=True)
    apart = knn(np.concatenate([x, x]), np.concatenate([y, y]), options, groups=groups)
    assert apart.by_k[1].accuracy == pytest.approx(knn(x, y, KnnOptions(k=(1,))).by_k[1].accuracy)


def test_masked_rows_neither_vote_nor_count() -> None:
    x, y = data()
    options = KnnOptions(k=(5,))
    junk = np.concatenate([x, np.full((4, 8), np.nan, np.float32), x[:3]])
    labels = np.concatenate([y, [0, 1, 2, 0], np.full(3, np.nan)])
    found = knn(junk, labels, options)
    assert found.masked == {"failed": 4, "unlabelled": 3}
    assert found.by_k == knn(x, y, options).by_k
    junk[200, 1:] = 0  # one NaN is enough, wherever it is
    assert knn(junk, labels, options).masked["failed"] == 4


def test_float16_infinities_are_masked() -> None:
    x, y = data()
    x = x.astype(np.float16)
    x[3, 5], x[4, 0] = np.inf, -np.inf
    assert knn(x, y, KnnOptions(k=(1,))).masked == {"failed": 2, "unlabelled": 0}


def test_classes_that_only_the_test_part_has() -> None:
    x, y = data()
    y[np.flatnonzero(HALVES["test"])[:10]] = 9
    found = knn(x, y, KnnOptions(k=(3,)), **HALVES)
    assert (found.classes, found.unseen) == (4, 1)
    assert found.by_k[3].accuracy < 1
    assert not math.isnan(found.by_k[3].auroc)


def test_one_class_in_the_test_part_has_no_auroc() -> None:
    x, y = data()
    y[HALVES["test"]] = 1
    found = knn(x, y, KnnOptions(k=(3,)), **HALVES).to_dict()
    assert math.isnan(found["test"]["auroc"])
    assert found["test"]["auroc_reason"]


def test_defaults_fit_the_base() -> None:
    x, y = data()
    assert list(knn(x[:40], y[:40]).by_k) == [20, 1, 5, 10]
    assert list(knn(x[:12], y[:12]).by_k) == [1, 5, 10]
    result = knn(x, y)
    best = result.to_dict()["best"]
    assert best["accuracy"] == max(m.accuracy for m in result.by_k.values())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": np.zeros(200)}, "1 class"),
        ({"labels": np.full(200, np.nan)}, "200 without a label"),
        ({"features": np.full((200, 8), np.nan)}, "200 failed"),
        ({"labels": np.full(200, 0.5)}, "whole numbers"),
        ({"labels": np.arange(200)}, "measurement"),
        ({"train": HALVES["train"]}, "without the other"),
        ({"train": HALVES["train"], "test": HALVES["train"]}, "100 rows in both"),
        ({"train": HALVES["train"], "test": np.zeros(200, bool)}, "No usable test row among 0"),
        ({"options": KnnOptions(k=(200,))}, "k = 200 with 200"),
        ({"options": KnnOptions(group_disjoint=True)}, "has a group"),
        (
            {"options": KnnOptions(group_disjoint=True), "groups": np.zeros(200, int)},
            "200 of a query's own image or group",
        ),
    ],
)
def test_refused_with_numbers(change: dict, says: str) -> None:
    x, y = data()
    given_arguments = {"features": x, "labels": y, **change}
    with pytest.raises(Refused, match=says):
        knn(**given_arguments)
