"""knn on arrays: what users get without a bank."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import Refused
from engine.evals.neighbours.knn import KnnOptions, knn
from tests.said import codes, said


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
    both = np.concatenate([x, x]), np.concatenate([y, y])
    alone = knn(x, y, KnnOptions(k=(1,))).by_k[1].accuracy
    for asked, accuracy in ((None, alone), (True, alone), (False, 1.0)):
        apart = knn(*both, KnnOptions(k=(1,), group_disjoint=asked), groups=groups)
        assert apart.by_k[1].accuracy == pytest.approx(accuracy)
        assert apart.to_dict()["group_disjoint"] is (asked is not False)
        assert codes(apart) == ["patients_mixed"] * (asked is False)


def test_unknown_patients_are_said_and_a_missing_one_is_alone() -> None:
    x, y = data()
    plain = knn(x, y, KnnOptions(k=(1, 5)))
    assert [text.partition(":")[0] for text in said(plain)] == ["No image names its patient (group)"]
    unknown = knn(x, y, KnnOptions(k=(1, 5)), groups=np.full(200, -1))
    assert (unknown.by_k, unknown.validity) == (plain.by_k, plain.validity) and not unknown.group_disjoint
    groups = np.where(np.arange(200) < 100, -1, np.arange(200) // 4)
    alone = np.where(groups < 0, 1000 + np.arange(200), groups)
    for parts in ({}, HALVES):
        some, every = (knn(x, y, KnnOptions(k=(1, 5)), groups=each, **parts) for each in (groups, alone))
        assert some.by_k == every.by_k and not said(some)
    near = some.neighbours.rows
    known = groups[some.test_rows] >= 0
    assert not (groups[some.train_rows][near] == groups[some.test_rows][:, None])[known].any()


def test_an_image_with_no_neighbour_of_another_patient_is_masked() -> None:
    """Train to test: all who vote are one patient, of whom the test part has some images as well."""
    x, y = data()
    groups = np.where(HALVES["train"] | (np.arange(200) < 40), 7, np.arange(200) + 100)
    found = knn(x, y, KnnOptions(k=(3,)), groups=groups, **HALVES)
    others = HALVES["test"] & (groups != 7)
    assert found.masked == {"failed": 0, "unlabelled": 0, "only_own_patient": 20}
    assert found.by_k == knn(x, y, KnnOptions(k=(3,)), train=HALVES["train"], test=others).by_k
    every = np.full(200, 7)
    with pytest.raises(Refused, match="of one group") as error:
        knn(x, y, KnnOptions(k=(3,)), groups=every, **HALVES)
    assert "--no-group-disjoint" in error.value.remedy
    shared = knn(x, y, KnnOptions(k=(3,), group_disjoint=False), groups=every, **HALVES)
    assert shared.by_k == knn(x, y, KnnOptions(k=(3,)), **HALVES).by_k


def test_too_large_a_k_beside_ones_own_patient_names_the_way_out() -> None:
    x, y = data()
    groups = np.where(np.arange(200) < 190, 0, np.arange(200))
    with pytest.raises(Refused, match="200 images to choose from less 190") as error:
        knn(x, y, KnnOptions(k=(20,)), groups=groups)
    assert "--no-group-disjoint" in error.value.remedy
    assert knn(x, y, KnnOptions(k=(20,), group_disjoint=False), groups=groups).by_k.keys() == {20}
    assert list(knn(x, y, groups=groups).by_k) == [1, 5, 10]


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
        ({"groups": np.zeros(199, int)}, "199 groups for 200 labels"),
        (
            {"options": KnnOptions(group_disjoint=True), "groups": np.zeros(200, int)},
            "All 200 images that vote and all 200 to be classified are of one group",
        ),
    ],
)
def test_refused_with_numbers(change: dict, says: str) -> None:
    x, y = data()
    given_arguments = {"features": x, "labels": y, **change}
    with pytest.raises(Refused, match=says):
        knn(**given_arguments)
