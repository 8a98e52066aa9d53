"""Reading: values, refusals, what is checked before use, and how little is imported for it."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from stores.backends.local import LocalBackend
from stores.bank import documents, integrity
from stores.bank.reader import Bank
from stores.errors import BankError
from stores.maintenance.verify import verify
from tests.stores.banks import embeddings, fill, is_bad, make_bank, make_key

ROWS, DIM = 300, 32
BAD = np.array([is_bad(row) for row in range(ROWS)])


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    return make_bank(tmp_path / "bank", ROWS, DIM)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("dim", [1, 7, 32, 33])
def test_features_are_what_was_committed(tmp_path: Path, dtype: str, dim: int) -> None:
    bank = make_bank(tmp_path / "bank", ROWS, dim, dtype=dtype)
    features = bank.features("torchvision/resnet18")
    values = embeddings(ROWS, dim)
    assert features.array.shape == (ROWS, dim)
    assert features.array.dtype == dtype
    np.testing.assert_array_equal(features.array[~BAD], values[~BAD].astype(dtype))
    assert np.isnan(features.array[BAD]).all()
    np.testing.assert_allclose(
        features.norm[~BAD], np.linalg.norm(values[~BAD].astype(float), axis=1), rtol=1e-6
    )
    np.testing.assert_array_equal(features.ok, ~BAD)
    np.testing.assert_array_equal(features.status, np.where(BAD, 2, 1))
    assert [f.row for f in features.failures()] == np.flatnonzero(BAD).tolist()
    assert {(f.code, f.detail) for f in features.failures()} == {("truncated", "cut off")}
    assert len(features) == ROWS
    assert features.key == bank.list()[0].key
    assert features.image_ids[:2] == ["image 00000", "image 00001"]
    np.testing.assert_array_equal(features.labels[:4], [1, 0, -1, 2])
    info = features.info
    assert (info.rows, info.ok, info.failed, info.pending, info.sealed) == (ROWS, 289, 11, 0, True)
    assert info == bank.list()[0]
    assert info.bytes == sum(
        path.stat().st_size for path in (bank.path / info.name).rglob("c/**/*") if path.is_file()
    )


def test_take_copies_rows_in_the_order_asked(bank: Bank) -> None:
    features = bank.features()
    rows = np.random.default_rng(0).integers(0, ROWS, 500)
    taken = features.take(rows)
    np.testing.assert_array_equal(taken, np.array(features.array)[rows])
    taken[0] = 0
    assert features.take([]).shape == (0, DIM)
    with pytest.raises(IndexError):
        features.take([ROWS])


def test_nothing_read_can_be_written(bank: Bank) -> None:
    features = bank.features()
    for array in (features.array, features.norm, features.status):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_the_array_outlives_the_bank_it_came_from(bank: Bank) -> None:
    array = bank.features().array
    np.testing.assert_array_equal(array[~BAD], embeddings(ROWS, DIM)[~BAD].astype(np.float16))


def test_unknown_and_ambiguous_names(bank: Bank) -> None:
    with pytest.raises(BankError, match="'moco-v2' is not in"):
        bank.features("moco-v2")
    fill(bank, make_key(bank.image_digest, model="moco-v2", layer="other"), 5)
    assert bank.features("moco-v2").dim == 5
    with pytest.raises(BankError, match="A feature could be any of"):
        bank.features()
    assert bank.features(bank.features("moco-v2").name).dim == 5


def stamped(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the files had been at rest for long."""
    monkeypatch.setattr(integrity, "SETTLED_NS", 0)
    time.sleep(0.02)
    assert verify(bank).ok


def stamps_of(bank: Bank) -> Path:
    path = integrity._stamps_file(bank.path, bank.list()[0].name)
    assert path is not None
    assert path.is_file()
    return path


def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of files that are read for their digest from now on."""
    read: list[str] = []
    honest = LocalBackend.digest

    def digest(self: LocalBackend, path: Path, expected: int | None = None) -> tuple[int, str] | None:
        read.append(path.as_posix())
        return honest(self, path, expected)

    monkeypatch.setattr(LocalBackend, "digest", digest)
    return read


def test_a_stamped_feature_opens_without_reading_its_data(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamped(bank, monkeypatch)
    read = hashed(monkeypatch)
    bank.features()
    assert read == []


def test_what_was_touched_is_read_again_once(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    stamped(bank, monkeypatch)
    path = bank.path / bank.list()[0].name / "embedding" / "c" / "2" / "0"
    path.touch()
    time.sleep(0.02)
    read = hashed(monkeypatch)
    bank.features()
    assert read == [path.as_posix()]
    bank.features()
    assert read == [path.as_posix()]


def test_a_replaced_file_of_the_same_size_and_time_is_read_again(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    stamped(bank, monkeypatch)
    path = bank.path / bank.list()[0].name / "norm" / "c" / "1"
    state = path.stat()
    data = bytearray(path.read_bytes())
    data[8] ^= 1
    copy = path.with_name("copy")
    copy.write_bytes(data)
    os.utime(copy, ns=(state.st_atime_ns, state.st_mtime_ns))
    copy.replace(path)
    with pytest.raises(BankError, match="Chunk 1 of feature"):
        bank.features()


def test_young_files_are_not_stamped(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second change within the clock's tick would leave the stamp as it was."""
    monkeypatch.setattr(integrity, "SETTLED_NS", 10**15)
    assert verify(bank).ok
    read = hashed(monkeypatch)
    bank.features()
    assert len(read) == len(bank.features()._seal.files)


@pytest.mark.parametrize("spoil", [b"", b"{}", b"garbage"])
def test_a_damaged_cache_is_no_cache(bank: Bank, monkeypatch: pytest.MonkeyPatch, spoil: bytes) -> None:
    stamped(bank, monkeypatch)
    stamps_of(bank).write_bytes(spoil)
    read = hashed(monkeypatch)
    bank.features()
    assert read


def test_stamps_of_another_seal_do_not_count(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    stamped(bank, monkeypatch)
    path = stamps_of(bank)
    path.write_bytes(documents.encode({**documents.read(path), "seal": "0" * 64}))
    read = hashed(monkeypatch)
    bank.features()
    assert read


def test_a_bank_that_cannot_be_written_is_read_all_the_same(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: LocalBackend, path: Path, *rest: object) -> None:
        raise BankError("read-only", "", "")

    monkeypatch.setattr(LocalBackend, "replace", refuse)
    monkeypatch.setattr(LocalBackend, "create", refuse)
    read = hashed(monkeypatch)
    for _ in range(2):
        np.testing.assert_array_equal(bank.features().ok, ~BAD)
    assert len(read) == 2 * len(bank.features()._seal.files)


@pytest.mark.parametrize(("rows", "chunk_rows"), [(ROWS + 1, 64), (ROWS, 128)], ids=["images", "grid"])
def test_a_feature_of_another_bank_is_refused(bank: Bank, tmp_path: Path, rows: int, chunk_rows: int) -> None:
    import shutil

    (tmp_path / "other").mkdir()
    other = make_bank(tmp_path / "other" / "bank", rows, DIM, chunk_rows, layer="other")
    name = other.list()[0].name
    for part in (".", ".embank"):
        shutil.copytree(other.path / part / name, bank.path / part / name)
    with pytest.raises(BankError, match="does not belong"):
        bank.features(name)
    assert not verify(bank).ok


def test_reading_imports_no_heavy_library(bank: Bank) -> None:
    script = (
        "import sys\n"
        "from stores.bank.reader import Bank\n"
        "from stores.bank.records import read_all\n"
        "features = Bank.open(sys.argv[1]).features()\n"
        "assert features.array.shape == (300, 32) and features.labels.size == 300 and features.failures()\n"
        "heavy = {'pandas', 'torch', 'zarr', 'pyarrow', 'scipy', 'numba', 'numcodecs', 'google_crc32c'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(bank.path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        check=True,
    )
    assert done.stdout.strip() == "[]"
