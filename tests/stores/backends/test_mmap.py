"""One array over many files: the right values, no copy, nothing writable, nothing leaked."""

import gc
import mmap
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stores.backends.mmap import map_chunks
from stores.errors import BankError

PAGE = mmap.PAGESIZE


def write_chunks(folder: Path, count: int, payload: int, seed: int = 0) -> tuple[list[Path], bytes]:
    generator = np.random.default_rng(seed)
    pieces = [generator.bytes(payload) for _ in range(count)]
    paths = [folder / f"chunk{index}" for index in range(count)]
    for path, piece in zip(paths, pieces, strict=True):
        path.write_bytes(piece + b"\xff\xee\xdd\xcc")
    return paths, b"".join(pieces)


def mapped_files(folder: Path) -> int:
    """Mappings of files in the folder that this process has now."""
    gc.collect()
    return Path("/proc/self/maps").read_text().count(str(folder))


@given(st.integers(1, 5), st.integers(1, 3 * PAGE // 8), st.sampled_from(["<f2", "<f4", "u1"]))
@settings(deadline=None, max_examples=60)
def test_the_array_is_the_chunks_one_after_another(
    tmp_path_factory: pytest.TempPathFactory, count: int, items: int, kind: str
) -> None:
    dtype = np.dtype(kind)
    paths, whole = write_chunks(tmp_path_factory.mktemp("chunks"), count, items * dtype.itemsize)
    array = map_chunks(paths, items * dtype.itemsize, dtype)
    assert array.dtype == dtype
    assert array.tobytes() == whole
    assert not array.flags.writeable


@pytest.mark.slow
@pytest.mark.parametrize("pages", [1, 2, 7])
def test_whole_pages_are_shared_with_the_files(tmp_path: Path, pages: int) -> None:
    paths, whole = write_chunks(tmp_path, 3, pages * PAGE)
    array = map_chunks(paths, pages * PAGE, np.dtype("<f2"), (8,))
    assert array.shape == (3 * pages * PAGE // 16, 8)
    assert array.flags.c_contiguous
    assert mapped_files(tmp_path) == 3
    # What is written to the file shows in the array: it is the file, not a copy.
    with paths[1].open("r+b") as file:
        file.seek(32)
        file.write(np.arange(8, dtype="<f2").tobytes())
    np.testing.assert_array_equal(array[pages * PAGE // 16 + 2], np.arange(8))
    assert array.tobytes()[: pages * PAGE] == whole[: pages * PAGE]


def test_one_file_is_mapped_whatever_its_size(tmp_path: Path) -> None:
    paths, whole = write_chunks(tmp_path, 1, 1234)
    array = map_chunks(paths, 1234, np.dtype("u1"))
    assert mapped_files(tmp_path) == 1
    assert array.tobytes() == whole


@pytest.mark.slow
def test_odd_payloads_are_read_into_memory(tmp_path: Path) -> None:
    paths, whole = write_chunks(tmp_path, 3, PAGE + 2)
    array = map_chunks(paths, PAGE + 2, np.dtype("<f2"))
    assert mapped_files(tmp_path) == 0
    assert array.tobytes() == whole


def test_elsewhere_than_on_linux_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    paths, whole = write_chunks(tmp_path, 2, PAGE)
    assert map_chunks(paths, PAGE, np.dtype("u1")).tobytes() == whole
    assert mapped_files(tmp_path) == 0


@pytest.mark.parametrize("payload", [PAGE, PAGE + 2])
def test_nobody_can_write(tmp_path: Path, payload: int) -> None:
    paths, _ = write_chunks(tmp_path, 2, payload)
    array = map_chunks(paths, payload, np.dtype("<f2"))
    for each in (array, array[3:], array.view("u1")):
        with pytest.raises(ValueError, match="read-only"):
            each[0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            each.flags.writeable = True


@pytest.mark.slow
def test_the_mapping_lives_as_long_as_any_view_and_no_longer(tmp_path: Path) -> None:
    paths, whole = write_chunks(tmp_path, 2, PAGE)
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    array = map_chunks(paths, PAGE, np.dtype("u1"))
    tail = array[PAGE + 5 :][::2]
    del array
    assert mapped_files(tmp_path) == 2
    assert tail.tobytes() == whole[PAGE + 5 :: 2]
    del tail
    assert mapped_files(tmp_path) == 0
    assert len(os.listdir("/proc/self/fd")) == descriptors  # noqa: PTH208


@pytest.mark.slow
@pytest.mark.parametrize("payload", [PAGE, PAGE + 2])
def test_missing_and_short_files_are_errors_and_leak_nothing(tmp_path: Path, payload: int) -> None:
    paths, _ = write_chunks(tmp_path, 3, payload)
    paths[1].write_bytes(b"short")
    with pytest.raises(BankError, match="too short"):
        map_chunks(paths, payload, np.dtype("u1"))
    paths[1].unlink()
    with pytest.raises(BankError, match="No such file"):
        map_chunks(paths, payload, np.dtype("u1"))
    assert mapped_files(tmp_path) == 0
