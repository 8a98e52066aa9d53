"""Uploads of host arrays: the same numbers, through page-locked memory, in few waits."""

import numpy as np
import pytest
import torch

from engine.runtime.uploads import upload, uploaded_blocks


def _array(rows: int = 23) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((rows, 5)).astype(np.float16)


@pytest.mark.parametrize("dtype", ["float16", "float32", ">f4", "float64"])
@pytest.mark.parametrize("rows", [None, np.array([3, 3, 22, 0])])
@pytest.mark.gpu
def test_uploaded_numbers_are_the_arrays(dtype: str, rows: np.ndarray | None) -> None:
    array = _array().astype(dtype)
    array.setflags(write=False)
    truth = array if rows is None else array[rows]
    for device in ("cpu", "cuda:0"):
        whole = upload(array, device, rows)
        assert str(whole.device) == device and np.array_equal(whole.cpu().numpy(), truth)
        blocks = list(uploaded_blocks(array, device, 3, rows))
        assert [start for start, _ in blocks] == list(range(0, len(truth), 3))
        assert np.array_equal(torch.cat([block for _, block in blocks]).cpu().numpy(), truth)
