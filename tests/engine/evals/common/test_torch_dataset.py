"""A bank's rows through torch's own DataLoader, in this process and in workers."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from engine.evals.common.torch_dataset import TorchDataset
from stores.bank.reader import FeatureSet
from stores.errors import Refused
from tests.probe_banks import DIM, FIRST, make_probe_bank


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    return make_probe_bank(tmp_path_factory.mktemp("torch")).features(FIRST)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_the_usable_rows_in_order(features: FeatureSet, workers: int) -> None:
    data = TorchDataset(features, split="train")
    x, y = features.xy(split="train")
    batches = list(DataLoader(data, batch_size=32, num_workers=workers))
    np.testing.assert_array_equal(torch.cat([batch for batch, _ in batches]).numpy(), x)
    np.testing.assert_array_equal(torch.cat([codes for _, codes in batches]).numpy(), y)
    assert (batches[0][0].dtype, batches[0][1].dtype) == (torch.float32, torch.int64)
    assert len(data) == len(x) == len(data.rows) and data.classes == ("apple", "pear", "zebra")


def test_items_are_copies_and_end(features: FeatureSet) -> None:
    data = TorchDataset(features)
    item, code = data[-1]
    item.zero_()
    assert data[-1][0].abs().sum() > 0 and item.shape == (DIM,) and isinstance(code, int)
    assert len(list(data)) == len(data)  # type: ignore[call-overload]
    with pytest.raises(IndexError):
        data[len(data)]


def test_what_a_spawned_worker_gets_is_small_and_the_same(features: FeatureSet) -> None:
    data = TorchDataset(features)
    assert data[0][0].isfinite().all()  # mapped by now
    sent = pickle.dumps(data)
    assert len(sent) < len(data) * 16 + 2000
    again = pickle.loads(sent)
    for index in (0, 5, len(data) - 1):
        assert torch.equal(again[index][0], data[index][0]) and again[index][1] == data[index][1]


def test_refuses_as_the_feature_does(features: FeatureSet, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="nowhere"):
        TorchDataset(features, split="nowhere")
