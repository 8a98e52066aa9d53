"""Embeddings of a bank on a device: the bank's numbers, by either route."""

from pathlib import Path

import numpy as np
import pytest

from engine.runtime import gpudirect
from engine.runtime.bank_uploads import upload_embeddings
from engine.runtime.resident import release_resident, resident_embeddings
from stores.bank.reader import Bank
from tests.probe_banks import FIRST, make_probe_bank


@pytest.mark.gpu
def test_embeddings_on_a_device_are_the_banks(tmp_path: Path) -> None:
    features = Bank.open(make_probe_bank(tmp_path).path).features(FIRST)
    matrix = upload_embeddings(features, "cuda:0")
    np.testing.assert_array_equal(matrix.cpu().numpy(), features.array)
    first = resident_embeddings(features, "cuda:0")
    assert resident_embeddings(features, "cuda:0") is first
    release_resident("cuda:0")


@pytest.mark.gpu(needs="kvikio")
def test_embeddings_read_without_the_host_are_the_banks(tmp_path: Path) -> None:
    import torch

    if reason := gpudirect.unavailable_reason():
        pytest.skip(reason)
    features = Bank.open(make_probe_bank(tmp_path).path).features(FIRST)
    files = features.chunk_files()
    assert files is not None
    into = torch.zeros((len(features), features.dim), dtype=torch.float16, device="cuda:0")
    if not gpudirect.read(files, into):
        pytest.skip(f"the file system of {tmp_path} has no GPUDirect Storage")
    np.testing.assert_array_equal(into.cpu().numpy(), features.array)
