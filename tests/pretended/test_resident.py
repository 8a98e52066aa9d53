"""Features that stay on the device: uploaded once for all evaluations, checked as they pass, given back."""

import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.evals.common.compute import Compute
from engine.evals.common.features import Features
from engine.evals.fewshot.evaluate import Options, Protocol, evaluate
from engine.kernels.logistic.solver import Options as FitOptions
from engine.kernels.logistic.solver import fit
from engine.runtime import bank_uploads, resident
from engine.runtime.resident import release_resident
from stores.backends.location import ObjectPath
from stores.bank.chunk_files import ChunkFiles
from stores.bank.reader import Bank
from stores.bank.sealed_files import _Fetched, _Mapped
from stores.errors import BankError
from tests.contracts.memory_backend import SCHEME, MemoryBackend, registered
from tests.pretended.streams import Device
from tests.probe_banks import DIM, FIRST, ROWS, SECOND, make_probe_bank
from tests.stores.banks import flip

PLACE = "cuda:0"
SIZE = ROWS * DIM * 2


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(str(make_probe_bank(tmp_path_factory.mktemp("resident")).path))


@pytest.fixture(autouse=True)
def nothing_resident() -> Iterator[None]:
    release_resident()
    yield
    release_resident()


def _opened(path: Path, model: str = FIRST) -> Features:
    return Features.from_bank(Bank.open(path), model)


def _protocol(shots: int) -> Options:
    return Options.of(Protocol(n_way=3, n_shot=shots, n_query=5, episodes=20))


def _uploads(device: Device) -> list[tuple[int, bool]]:
    return [(e.size, e.pinned) for e in device.ledger.entries if e.kind == "upload" and "uploads" in e.place]


def test_evaluations_share_one_upload_of_a_bank_that_each_opens(path: Path, device: Device) -> None:
    on_cpu = [evaluate(_opened(path), _protocol(shots), Compute()) for shots in (1, 1, 5)]
    there = Compute(PLACE)
    on_device = [evaluate(_opened(path), _protocol(shots), there) for shots in (1, 1, 5)]
    for ours, truth in zip(on_device, on_cpu, strict=True):
        np.testing.assert_array_equal(ours.per_episode, truth.per_episode)
    features = _opened(path)
    rows, codes = features.usable().rows, features.labels.codes
    options = FitOptions(device=PLACE)
    fits = fit(features.on(PLACE), codes, np.ones(1), rows=rows, options=options)
    truth = fit(features.array, codes, np.ones(1), rows=rows)
    np.testing.assert_allclose(fits.coef, truth.coef, rtol=0, atol=1e-4)
    copies = _uploads(device)
    assert sum(size for size, _ in copies) == SIZE
    assert all(pinned for _, pinned in copies)


@pytest.mark.parametrize("buffer", [500, 1000, 1 << 20])
def test_the_numbers_are_the_banks_and_nothing_waits_but_for_events(
    path: Path, device: Device, buffer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bank_uploads, "BUFFER_BYTES", buffer)
    monkeypatch.setattr(bank_uploads, "_SLICE", 128)
    features = _opened(path)
    matrix = features.on(PLACE)
    assert matrix.dtype == torch.float16 and matrix.shape == (ROWS, DIM)
    np.testing.assert_array_equal(matrix.cpu().numpy(), features.array)
    before = [e for e in device.ledger.entries if e.place.startswith("engine")]
    pieces = 4 * -(-64 * DIM * 2 // buffer)
    # Each buffer is waited for before its reuse, and the last copy before others may see the tensor.
    assert [e.cause for e in before if e.kind == "wait"] == ["event"] * (pieces - 2 + 1)
    assert sum(size for size, _ in _uploads(device)) == SIZE


def _own(tmp_path: Path) -> Path:
    return Path(str(make_probe_bank(tmp_path).path))


def test_a_chunk_damaged_after_opening_is_refused_as_by_the_reader(tmp_path: Path, device: Device) -> None:
    bank = _own(tmp_path)
    features = _opened(bank)
    flip(next(bank.glob("*resnet18*/embedding/c/2/0")))
    with pytest.raises(BankError, match=r"Chunk 2 of feature .* is damaged: .*SHA-256") as here:
        evaluate(features, _protocol(1), Compute(PLACE))
    with pytest.raises(BankError) as there:
        _opened(bank)
    assert str(here.value) == str(there.value)
    assert not resident._cache


@pytest.mark.parametrize("place", ["row", "padding", "checksum", "cut"])
def test_damage_below_the_file_system_is_found_by_the_checksum(
    tmp_path: Path, device: Device, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stamp says that nobody has written, and yet the bytes differ: the medium has decayed."""
    bank = _own(tmp_path)
    features = _opened(bank)
    monkeypatch.setattr(_Mapped, "ensure", lambda self: None)
    file = next(bank.glob("*resnet18*/embedding/c/3/0"))  # of 48 rows, and 16 of padding
    data = bytearray(file.read_bytes())
    data[{"row": 5, "padding": 50 * DIM * 2, "checksum": -1, "cut": 0}[place]] ^= 1
    file.write_bytes(data[:700] if place == "cut" else data)
    reason = "too short" if place == "cut" else "content differs from its CRC-32C"
    with pytest.raises(BankError, match=f"Chunk 3 of feature .* is damaged: .*: {reason}") as error:
        features.on(PLACE)
    assert "embank bank repair" in error.value.remedy and error.value.exit_code == 2
    assert not resident._cache
    assert _opened(bank, SECOND).on(PLACE) is not None


@pytest.fixture
def fetched(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectPath]:
    """The bank in an object store; the folder `cache` is there for copies."""
    monkeypatch.setenv("EMBANK_CACHE", str(tmp_path / "cache"))
    storage, root = MemoryBackend(), ObjectPath(SCHEME, "bucket", "bank")
    for file in path.rglob("*"):
        if file.is_file():
            storage.files[root / file.relative_to(path).as_posix()] = file.read_bytes()
    with registered(storage):
        yield root


@pytest.mark.parametrize("cache", [True, False])
def test_a_bank_in_an_object_store_is_uploaded_once(
    fetched: ObjectPath, path: Path, device: Device, cache: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not cache:
        monkeypatch.setenv("EMBANK_CACHE", "")
    matrices = [Features.from_bank(str(fetched), FIRST).on(PLACE) for _ in range(2)]
    assert matrices[0] is matrices[1]
    np.testing.assert_array_equal(matrices[0].cpu().numpy(), _opened(path).array)
    copies = _uploads(device)
    assert sum(size for size, _ in copies) == SIZE and all(pinned for _, pinned in copies)


def test_a_decayed_copy_of_an_object_is_named_and_fetched_again(
    fetched: ObjectPath, tmp_path: Path, device: Device
) -> None:
    features = Features.from_bank(str(fetched), FIRST)
    assert features.array.size  # which fetches it
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Fetched, "_fill", lambda *_: None)
        (copy,) = (tmp_path / "cache").glob("banks/*/*resnet18*/embedding/c/0/0")
        flip(copy)
        with pytest.raises(BankError, match=r"Chunk 0 .*CRC-32C") as error:
            features.on(PLACE)
    remedy = re.match("remove (.*), which holds copies", error.value.remedy)
    assert remedy
    shutil.rmtree(remedy[1])
    again = Features.from_bank(str(fetched), FIRST)
    np.testing.assert_array_equal(again.on(PLACE).cpu().numpy(), again.array)


def test_what_does_not_fit_is_brought_in_parts(
    path: Path, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = _opened(path)
    assert features.on(PLACE, memory=2 * SIZE - 1) is None
    assert features.on(PLACE, memory=2 * SIZE) is not None
    assert features.on(PLACE, memory=2 * SIZE - 1) is None  # though it is there: this evaluation may not
    monkeypatch.setattr("engine.evals.fewshot.predictors._PART_BYTES", 1000)
    ours = evaluate(features, _protocol(1), Compute(PLACE, memory=SIZE))
    np.testing.assert_array_equal(
        ours.per_episode, evaluate(_opened(path), _protocol(1), Compute()).per_episode
    )


def test_the_least_recently_used_copy_gives_way(
    path: Path, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = 4 * SIZE  # two copies fit: the second one takes half of what is then free
    monkeypatch.setattr(
        resident, "free_device_bytes", lambda _: room - sum(t.nbytes for t in resident._cache.values())
    )
    first, second = _opened(path), _opened(path, SECOND)
    one = first.on(PLACE)
    two = second.on(PLACE)
    assert first.on(PLACE) is one  # used last
    room = 4 * SIZE - 2
    third = Features.from_arrays(np.zeros((ROWS, 2 * DIM), np.float16), None)
    assert third.on(PLACE) is None  # more than half, were no copy there
    assert len(resident._cache) == 2, "none is dropped in vain"
    room = 4 * SIZE
    fourth = Features.from_arrays(np.zeros((ROWS, DIM * 3 // 2), np.float16), None)
    assert fourth.on(PLACE) is not None
    assert first.on(PLACE) is one and second.on(PLACE) is not two


def test_threads_share_one_upload(path: Path, device: Device) -> None:
    matrices: list[object] = []
    threads = [threading.Thread(target=lambda: matrices.append(_opened(path).on(PLACE))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(matrices) == 3 and len({id(matrix) for matrix in matrices}) == 1
    assert sum(size for size, _ in _uploads(device)) == SIZE


def test_memory_is_given_back(path: Path, device: Device) -> None:
    matrix = _opened(path).on(PLACE)
    release_resident("cuda:1")
    assert _opened(path).on(PLACE) is matrix
    release_resident(PLACE)
    assert not resident._cache and _opened(path).on(PLACE) is not matrix


def test_another_bank_at_the_same_place_is_another_matrix(tmp_path: Path, device: Device) -> None:
    bank = _own(tmp_path)
    old = _opened(bank).on(PLACE)
    (tmp_path / "bank").rename(tmp_path / "old")
    from tests import probe_banks

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe_banks, "FAILED", (5, 77))
        new = _opened(_own(tmp_path)).on(PLACE)
    assert new is not old and not torch.equal(new.isnan(), old.isnan())


@pytest.mark.parametrize("kind", ["numpy", "tensor", "bfloat16", "there"])
def test_arrays_of_a_user_stay_with_their_features(kind: str, device: Device) -> None:
    array = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    given = {
        "numpy": lambda: array,
        "tensor": lambda: torch.nn.Parameter(torch.from_numpy(array)),
        "bfloat16": lambda: torch.from_numpy(array).bfloat16(),
        "there": lambda: torch.from_numpy(array).to(PLACE),
    }[kind]()
    features = Features.from_arrays(given, np.arange(40) % 2)
    matrix = features.on(PLACE)
    assert str(matrix.device) == PLACE and features.on(PLACE) is matrix
    assert (matrix is given) == (kind == "there")
    truth = array if kind != "bfloat16" else torch.from_numpy(array).bfloat16().float().numpy()
    np.testing.assert_array_equal(matrix.float().cpu().numpy(), truth)
    array *= 2
    again = Features.from_arrays(array, np.arange(40) % 2)
    np.testing.assert_array_equal(again.on(PLACE).cpu().numpy(), array)
    assert again.on("cpu") is array
    host = features.on("cpu")
    assert isinstance(host, np.ndarray) and (host is given) == (kind == "numpy")
    np.testing.assert_array_equal(host, given if kind == "numpy" else given.detach().float().cpu().numpy())


def test_chunk_files_say_how_much_of_them_is_rows(path: Path) -> None:
    files = _opened(path).source.features.chunk_files()  # type: ignore[union-attr]
    assert isinstance(files, ChunkFiles)
    assert files.size == SIZE and files.payload == 64 * DIM * 2 and len(files.paths) == 4
    assert all(file.stat().st_size == files.payload + 4 for file in files.paths)
