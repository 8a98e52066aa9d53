"""Array files: what is read is what was written, or an error."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from stores.bank import array_cache
from stores.bank.documents import BrokenDocument
from stores.bank.layout import SIDE

KEY = {"feature": "abc", "rows": [1, 2], "ridge": 1e-6}


def example() -> dict[str, np.ndarray]:
    return {
        "mean": np.arange(5.0),
        "factor": np.eye(5, dtype=np.float32),
        "views": np.ones((2, 3), np.float16),
    }


def test_round_trip_and_absence(tmp_path: Path) -> None:
    assert array_cache.read(tmp_path, "statistics/a.arrays", KEY) is None
    array_cache.write(tmp_path, "statistics/a.arrays", KEY, example())
    found = array_cache.read(tmp_path, "statistics/a.arrays", KEY)
    assert found is not None and set(found) == {"mean", "factor", "views"}
    for name, array in example().items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    assert list((tmp_path / SIDE / "tmp").iterdir()) == []


@settings(max_examples=15, deadline=None)
@given(
    array=arrays_of.arrays(
        st.sampled_from([np.float16, np.float32, np.float64, np.uint8]),
        arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    )
)
def test_any_array_keeps_its_bits(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray) -> None:
    folder = tmp_path_factory.mktemp("bits")
    array_cache.write(folder, "x.arrays", {}, {"x": array})
    found = array_cache.read(folder, "x.arrays", {})
    assert found is not None and found["x"].shape == array.shape
    assert found["x"].tobytes() == array.tobytes()


def test_every_flipped_byte_a_cut_and_an_extra_byte_are_found(tmp_path: Path) -> None:
    array_cache.write(tmp_path, "a.arrays", KEY, example())
    path = tmp_path / SIDE / "a.arrays"
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(BrokenDocument):
            array_cache.read(tmp_path, "a.arrays", KEY)
    for other in (whole[:-1], whole + b"\0", b""):
        path.write_bytes(other)
        with pytest.raises(BrokenDocument):
            array_cache.read(tmp_path, "a.arrays", KEY)


def test_another_key_and_another_dtype(tmp_path: Path) -> None:
    array_cache.write(tmp_path, "a.arrays", KEY, example())
    with pytest.raises(BrokenDocument):
        array_cache.read(tmp_path, "a.arrays", {**KEY, "ridge": 2e-6})
    with pytest.raises(ValueError, match="complex"):
        array_cache.write(tmp_path, "a.arrays", KEY, {"x": np.zeros(2, np.complex64)})
