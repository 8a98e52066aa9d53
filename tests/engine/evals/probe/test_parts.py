"""Parts: what the split column says, cuts by patient, the study's cut, and what is refused."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import Refused
from engine.evals.common.features import Features
from engine.evals.probe.parts import Columns, SplitOptions, parts, published_validation
from tests.said import said

ORACLES = json.loads((Path(__file__).parents[3] / "oracles/label_tables.json").read_text())
#: SHA-256 over the validation indices of 134,049 images, one a line (computed apart from this code).
CHEXPERT = "7690ac6ca032f76814056ce844b9d5d8ec6044870d5e8f498dddef5517c2bcb8"


def table(
    split: list[str] | np.ndarray, group: list[str] | np.ndarray | None = None, ids: list[str] | None = None
) -> Columns:
    """Columns of these cells; the empty text is a missing one."""

    def coded(cells: list[str]) -> tuple[np.ndarray, list[str]]:
        names = sorted(set(cells) - {""})
        return np.array([names.index(cell) if cell else -1 for cell in cells]), names

    groups = [""] * len(split) if group is None else [str(each) for each in group]
    return Columns(
        ids or [f"image {row}" for row in range(len(split))],
        *coded([str(each) for each in split]),
        *coded(groups),
    )


def made(seed: int, n: int, classes: int = 3, patients: int = 0) -> tuple[Columns, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.tile(np.arange(classes), 4), rng.integers(0, classes, n)])
    split = np.where(np.arange(len(labels)) % 4 == 3, "test", "train")
    split[: 3 * classes], split[3 * classes : 4 * classes] = "train", "test"
    group = [f"p{each}" for each in rng.integers(0, patients, len(labels))] if patients else None
    return table(split, group), labels


def everything(labels: np.ndarray) -> np.ndarray:
    return np.ones(len(labels), bool)


def test_given_parts_are_taken_as_they_are() -> None:
    columns = table(["train", "val", "test", "train", "val", "test", "train", ""])
    labels = np.array([0, 0, 0, 1, 1, 1, -1, 0])
    ok = np.array([1, 1, 1, 1, 1, 1, 1, 1], bool)
    found = parts(columns, labels, ok)
    assert (found.train.tolist(), found.val.tolist(), found.test.tolist()) == ([0, 3], [1, 4], [2, 5])
    assert found.masked == {"failed": 0, "unlabelled": 1}
    assert found.notes == ("1 image of another split takes no part: without a split 1",)
    assert found.others == {"": 1}
    assert found.refit.tolist() == [0, 3, 1, 4]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    n=st.integers(10, 150),
    classes=st.integers(2, 5),
    patients=st.sampled_from([0, 12, 60]),
    fraction=st.sampled_from([0.1, 0.2, 0.5]),
)
def test_a_cut_keeps_patients_whole_whatever_the_order_of_rows(
    seed: int, n: int, classes: int, patients: int, fraction: float
) -> None:
    columns, labels = made(seed, n, classes, patients)
    options, ok = SplitOptions(fraction=fraction, seed=seed), everything(labels)
    found = parts(columns, labels, ok, options)
    both = np.concatenate([found.train, found.val])
    assert sorted(both) == np.flatnonzero(columns.split == columns.split_names.index("train")).tolist()
    if patients:
        assert not np.intersect1d(columns.group[found.train], columns.group[found.val]).size
    order = np.random.default_rng(seed).permutation(len(labels))
    moved = Columns(
        [columns.image_ids[row] for row in order],
        columns.split[order],
        columns.split_names,
        columns.group[order],
        columns.group_names,
    )
    again = parts(moved, labels[order], ok, options)
    assert sorted(order[again.val]) == sorted(found.val)
    # Which images failed does not move the others.
    ok = np.random.default_rng(seed).random(len(labels)) < 0.95
    ok[: 4 * classes] = True
    try:
        fewer = parts(columns, labels, ok, options)
    except Refused:
        return
    assert sorted(fewer.val) == sorted(found.val[ok[found.val]])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(0, 200), classes=st.integers(2, 6))
def test_without_patients_every_class_gives_its_share(seed: int, n: int, classes: int) -> None:
    columns, labels = made(seed, n, classes)
    found = parts(columns, labels, everything(labels))
    train = np.bincount(labels[found.refit], minlength=classes)
    wanted = np.clip(np.floor(0.2 * train + 0.5), 1, train - 1)
    assert (np.abs(np.bincount(labels[found.val], minlength=classes) - wanted) <= 0.5).all()
    assert any("images, as none has a group" in note for note in found.notes)


def test_patients_of_several_images_give_about_a_fifth_of_each_class() -> None:
    columns, labels = made(0, 4000, 3, 1500)
    found = parts(columns, labels, everything(labels))
    for c in range(3):
        share = (labels[found.val] == c).sum() / (labels[found.refit] == c).sum()
        assert share == pytest.approx(0.2, abs=0.03)


def test_seeds_and_purposes_cut_differently() -> None:
    columns, labels = made(0, 300)
    first, second = (
        parts(columns, labels, everything(labels), SplitOptions(seed=seed)).val for seed in (0, 1)
    )
    assert 0 < len(np.intersect1d(first, second)) < 0.6 * len(first)


def test_a_class_of_one_patient_stays_in_train() -> None:
    columns = table(["train"] * 12 + ["test"] * 2, ["a", "b", "c", "d"] * 3 + ["x", "y"])
    labels = np.array([0, 0, 0, 1] * 3 + [0, 1])
    found = parts(columns, labels, everything(labels))
    assert set(labels[found.train]) == {0, 1}
    assert any("Validation has no image of 1" in sentence for sentence in said(found))


def test_holdout_cuts_a_test_part_and_then_validation() -> None:
    rng = np.random.default_rng(0)
    labels, group = rng.integers(0, 2, 1000), rng.integers(0, 400, 1000)
    columns = table([""] * 1000, group)
    found = parts(columns, labels, everything(labels), SplitOptions(holdout=True))
    sizes = [len(found.train), len(found.val), len(found.test)]
    assert sum(sizes) == 1000
    assert sizes[2] == pytest.approx(200, abs=15)
    assert sizes[1] == pytest.approx(160, abs=15)
    for one, other in ((found.train, found.val), (found.train, found.test), (found.val, found.test)):
        assert not np.intersect1d(columns.group[one], columns.group[other]).size
    assert any("held out" in note for note in found.notes)


def test_the_studys_validation_indices() -> None:
    order = published_validation(134_049)
    validation = "\n".join(map(str, order[:26_809]))
    assert hashlib.sha256(validation.encode()).hexdigest() == CHEXPERT


def test_the_studys_validation_indices_of_both_large_sets() -> None:
    for wanted in (ORACLES["chexpert"]["paper_split"]["validation"], ORACLES["eyepacs"]["validation"]):
        count = wanted["rows"] + wanted["train_rows"]
        columns = table(["train"] * count + ["test"] * 2)
        labels = np.append(np.arange(count) % 2, [0, 1])
        found = parts(columns, labels, everything(labels), SplitOptions(mode="as-published"))
        assert (len(found.val), len(found.train)) == (wanted["rows"], wanted["train_rows"])
        text = "\n".join(map(str, found.val))
        assert hashlib.sha256(text.encode()).hexdigest() == wanted["sha256_indices"]


def test_the_studys_cut_counts_labelled_train_rows_only() -> None:
    columns = table(["test", "train"] * 20)
    labels = np.tile([0, 0, 1, 1], 10)
    labels[1] = -1
    found = parts(columns, labels, everything(labels), SplitOptions(mode="as-published"))
    rows = np.arange(3, 40, 2)
    order = np.arange(19)
    np.random.RandomState(0).shuffle(order)
    assert found.val.tolist() == rows[order[:3]].tolist()


def test_patients_in_two_parts_are_said() -> None:
    columns = table(["train", "train", "val", "val", "test", "test"], ["a", "b", "b", "c", "a", "d"])
    found = parts(columns, np.array([0, 1] * 3), np.ones(6, bool))
    assert "1 of 2 test images belong to a patient (group) of train or val images" in said(found)
    assert "1 of 2 val images belong to a patient (group) of train images" in said(found)


def test_a_class_in_test_alone_is_named_and_counted_as_unseen() -> None:
    columns = table(["train", "train", "val", "val", "test", "test", "test"])
    found = parts(columns, np.array([0, 1, 0, 1, 0, 1, 2]), np.ones(7, bool), class_names=["a", "b", "c"])
    assert found.unseen == (2,)
    assert any("Test has images of 'c'" in sentence for sentence in said(found))
    assert len(found.test) == 3


def test_findings_share_a_cut() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 2, (400, 3))
    columns = table(np.where(np.arange(400) % 5 == 0, "test", "train"), rng.integers(0, 120, 400))
    whole = parts(columns, labels, np.ones(400, bool))
    assert whole.masked["unlabelled"] == (labels < 0).all(axis=1).sum()
    assert (labels[whole.train] >= 0).any(axis=1).all()
    assert not np.intersect1d(columns.group[whole.train], columns.group[whole.val]).size
    for finding in range(2):
        share = (labels[whole.val, finding] == 1).sum() / (labels[whole.refit, finding] == 1).sum()
        assert share == pytest.approx(0.2, abs=0.08)


@pytest.mark.parametrize(
    ("split", "options", "says"),
    [
        (["train", "train", "fold", "fold"], {}, r"'test'.*fold \(2\), train \(2\)"),
        (["test", "test", "fold", "fold"], {}, "'train' to train on"),
        (["", "", "", ""], {}, "--holdout"),
        (["train", "train", "test", "test"], {"holdout": True}, "only where none is given"),
        (["train", "train", "test", "test"], {"fraction": 1.0}, "between 0 and 1"),
        (["train", "train", "test", "test"], {"val": "test"}, "two parts"),
        (["train", "train", "test", "test"], {"mode": "paper"}, "as-published"),
        (["train", "train", "test", "test"], {"mode": "as-published", "fraction": 0.1}, "study's is 0.2"),
        (["train", "train", "test", "test"], {}, "No usable val row among 0"),
    ],
)
def test_refused(split: list[str], options: dict, says: str) -> None:
    with pytest.raises(Refused, match=says):
        parts(table(split), np.array([0, 1, 0, 1]), np.ones(4, bool), SplitOptions(**options))


def test_columns_of_features() -> None:
    ids, splits, groups = list("wxyz"), ["train", "", "test", "train"], ["b", "a", "", "b"]
    features = Features.from_arrays(np.zeros((4, 1)), None, splits=splits, groups=groups, image_ids=ids)
    columns = Columns.of(features)
    assert [columns.image_ids[row] for row in range(4)] == ids
    assert (columns.split.tolist(), columns.split_names) == ([1, -1, 0, 1], ["test", "train"])
    assert columns.units.tolist() == [1, 0, 4, 1]
    with pytest.raises(Refused, match="There are test") as error:
        parts(columns, np.zeros(4, int), np.ones(4, bool), SplitOptions(train="fold"))
    assert "--train-split" in error.value.remedy


def test_one_class_in_train_is_refused() -> None:
    columns = table(["train", "train", "val", "test"])
    with pytest.raises(Refused, match="1 class among 2 train images"):
        parts(columns, np.array([1, 1, 0, 0]), np.ones(4, bool))
    with pytest.raises(Refused, match=r"No usable test row among 1 \(1 failed"):
        parts(columns, np.array([1, 0, 0, 0]), np.array([1, 1, 1, 0], bool))
