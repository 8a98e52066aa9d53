"""Usable rows with their labels, against pandas' reading of the manifest; and features that are pickled."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from stores.bank.reader import Bank, FeatureSet
from stores.bank.writer import open_or_create
from stores.errors import BankError, ManifestError, Refused
from stores.manifest.manifest import Manifest
from tests.probe_banks import FAILED, FIRST, ROWS, SECOND, fill_with, make_probe_bank
from tests.stores.banks import embeddings, make_key


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return make_probe_bank(tmp_path_factory.mktemp("labelled"))


def usable(bank: Bank, column: str, split: str | None = None) -> pd.Series:
    """Labels of the rows to expect, indexed by row."""
    frame = bank.manifest().frame.drop(index=list(FAILED))
    frame = frame[frame[column] != ""]
    return frame[column] if split is None else frame[column][frame["split"] == split]


def bank_with(root: Path, **columns: list[str]) -> FeatureSet:
    rows = len(next(iter(columns.values())))
    frame = pd.DataFrame({"uri": [f"{row}.png" for row in range(rows)], **columns})
    bank = open_or_create(root / "bank", Manifest.from_frame(frame, root / "images"), chunk_rows=64)
    fill_with(bank, make_key(bank.image_digest), embeddings(rows, 3))
    return bank.features()


@pytest.mark.parametrize("split", [None, "train", "test"])
@pytest.mark.parametrize("column", ["label", "oedema", "split", "group"])
def test_rows_labels_and_embeddings_belong_together(bank: Bank, column: str, split: str | None) -> None:
    features = bank.features(FIRST)
    truth = usable(bank, column, split)
    chosen = features.labelled(column, split)
    assert chosen.rows.tolist() == truth.index.tolist()
    assert [chosen.classes[code] for code in chosen.codes] == truth.tolist()
    assert list(chosen.classes) == sorted(set(bank.manifest().column(column)) - {""})
    x, y = features.xy(column, split)
    assert (x.dtype, y.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(x, np.array(features.array)[truth.index].astype(np.float32))
    np.testing.assert_array_equal(y, chosen.codes)


def test_blocks_are_put_together_in_order(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bank.features(FIRST).xy()[0]
    monkeypatch.setattr("stores.bank.reader._BLOCK", 7)
    np.testing.assert_array_equal(bank.features(FIRST).xy()[0], whole)


def test_scikit_learn_takes_them_as_they_are(bank: Bank) -> None:
    features = bank.features(FIRST)
    model = LogisticRegression(max_iter=500).fit(*features.xy(split="train"))
    test = features.labelled(split="test")
    x, y = features.xy(split="test")
    assert model.score(x, y) > 0.5  # features know the label; the commonest class has half
    names = np.array(test.classes)[model.predict(x)]
    assert np.mean(names == usable(bank, "label", "test").to_numpy()) == model.score(x, y)


@pytest.mark.parametrize(
    ("column", "split", "error", "says"),
    [
        ("label", "nowhere", Refused, "The bank has 'test', 'train', 'val'"),
        ("nothing", None, ManifestError, "nothing"),
        ("edema", None, Refused, "-1 means uncertain"),
    ],
)
def test_what_is_no_class_is_refused(
    bank: Bank, column: str, split: str | None, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        bank.features(FIRST).xy(column, split)


def test_measurements_are_no_classes(tmp_path: Path) -> None:
    ages = [str(20 + row / 8) for row in range(40)]
    features = bank_with(tmp_path, label=["a", "b"] * 20, age=ages)
    with pytest.raises(Refused, match="measurement"):
        features.xy("age")


def test_no_usable_row_is_refused_with_the_counts(tmp_path: Path) -> None:
    features = bank_with(tmp_path, label=["", "a", "", "b"], split=["test", "train"] * 2)
    with pytest.raises(Refused, match="0 without an embedding, 2 without a value") as error:
        features.xy(split="test")
    assert error.value.found.startswith("No usable row among the 2 of split 'test'")
    assert features.xy(split="training")[1].tolist() == [0, 1]


def test_a_pickle_is_the_place_and_not_the_numbers(bank: Bank) -> None:
    features = bank.features(SECOND)
    assert np.isfinite(features.array).sum() == (ROWS - len(FAILED)) * features.dim  # mapped by now
    data = pickle.dumps(features)
    assert len(data) < 1000
    again = pickle.loads(data)
    assert (again.name, again.title, again.key) == (features.name, features.title, features.key)
    np.testing.assert_array_equal(again.array, features.array)
    assert not again.array.flags.writeable


def test_a_pickle_of_another_feature_by_that_name_is_refused(tmp_path: Path) -> None:
    features = bank_with(tmp_path, label=["a", "b"] * 4)
    data = pickle.dumps(features)
    (tmp_path / "bank").rename(tmp_path / "old")
    with pytest.raises(BankError, match="is not a bank"):
        pickle.loads(data)
    manifest = Bank.open(tmp_path / "old").manifest()
    bank = open_or_create(tmp_path / "bank", manifest, chunk_rows=64)
    fill_with(bank, make_key(bank.image_digest), embeddings(8, 3, seed=1))
    with pytest.raises(BankError, match="has changed since it was pickled"):
        pickle.loads(data)
