"""The route without the host: taken where kvikio has GPUDirect Storage, left without a word where it has not.

The library in these tests stands for kvikio 26.10, whose calls it has: it fills tensors of the pretended
device from files.
"""

import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from engine import doctor
from engine.evals.common.features import Features
from engine.runtime import gpudirect
from engine.runtime.resident import release_resident
from stores.bank.reader import Bank
from stores.errors import BankError
from tests.pretended.streams import Device
from tests.probe_banks import FIRST, make_probe_bank
from tests.stores.banks import flip

PLACE = "cuda:0"


class _Future:
    def __init__(self, size: int) -> None:
        self._sizes = [size]

    def done(self) -> bool:
        return True

    def get(self) -> int:
        return self._sizes.pop()  # a second time raises, as the library's does


class Kvikio(ModuleType):
    """What embank uses of kvikio.

    Attributes:
        gds: whether there is GPUDirect Storage.
        supported: whether the file system has it.
        short: whether reads end too early.
        reads: bytes of each read.
        modes: compatibility mode of each file.
        after: called once, when the first file is closed.
    """

    __version__ = "26.10.00"

    def __init__(self) -> None:
        super().__init__("kvikio")
        self.__path__ = []
        self.CompatMode = type("CompatMode", (), {"OFF": 0, "ON": 1, "AUTO": 2})
        self.mode, self.gds, self.supported, self.short = 2, True, True, False
        self.reads: list[int] = []
        self.modes: list[int] = []
        self.after: Callable[[], object] = lambda: None
        self.defaults, self.cufile_driver = ModuleType("kvikio.defaults"), ModuleType("kvikio.cufile_driver")
        self.defaults.get = lambda name: {"compat_mode": self.mode}[name]
        self.defaults.set = self._set
        self.cufile_driver.get = lambda name: {"is_gds_available": self.gds}[name]
        self.CuFile = lambda path, flags: _File(self, Path(path), flags)

    def _set(self, name: str, value: int) -> Any:
        owner, before = self, self.mode
        assert name == "compat_mode"
        self.mode = value

        class Undone:
            def __enter__(self) -> None:
                return None

            def __exit__(self, *_: object) -> None:
                owner.mode = before

        return Undone()


class _File:
    def __init__(self, owner: Kvikio, path: Path, flags: str) -> None:
        if not owner.supported:
            raise RuntimeError("cuFile error: file system not supported")
        assert flags == "r"
        owner.modes.append(owner.mode)
        self.owner, self.path = owner, path

    def pread(self, buffer: Any, size: int) -> _Future:
        assert buffer.device.type == "cuda" and buffer.dtype == torch.uint8 and len(buffer) == size
        buffer.numbers.copy_(torch.from_numpy(np.fromfile(self.path, np.uint8, size)))
        self.owner.reads.append(size)
        return _Future(size - self.owner.short)

    def close(self) -> None:
        after, self.owner.after = self.owner.after, lambda: None
        after()


@pytest.fixture
def kvikio(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kvikio]:
    library = Kvikio()
    library.__spec__ = ModuleSpec("kvikio", None)
    for name, module in (
        ("kvikio", library),
        ("kvikio.defaults", library.defaults),
        ("kvikio.cufile_driver", library.cufile_driver),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    gpudirect.unavailable_reason.cache_clear()
    release_resident()
    yield library
    gpudirect.unavailable_reason.cache_clear()
    release_resident()


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    return Path(str(make_probe_bank(tmp_path).path))


def _features(bank: Path) -> Features:
    return Features.from_bank(Bank.open(bank), FIRST)


def _host_bytes(device: Device) -> int:
    return device.ledger.size("upload", "engine/runtime/bank_uploads.py")


def test_files_are_read_into_the_device_without_the_host(bank: Path, device: Device, kvikio: Kvikio) -> None:
    features = _features(bank)
    np.testing.assert_array_equal(features.on(PLACE).cpu().numpy(), features.array)
    assert _host_bytes(device) == 0 and sum(kvikio.reads) == features.array.nbytes
    assert set(kvikio.modes) == {kvikio.CompatMode.OFF} and kvikio.mode == kvikio.CompatMode.AUTO


@pytest.mark.parametrize(
    ("lack", "reason"),
    [
        ({"gds": False}, "no GPUDirect"),
        ({"mode": 1}, "compatibility mode"),
        ({"supported": False}, ""),
        ({"short": True}, ""),
    ],
)
def test_without_it_the_host_is_used(
    bank: Path, device: Device, kvikio: Kvikio, lack: dict[str, Any], reason: str
) -> None:
    for name, value in lack.items():
        setattr(kvikio, name, value)
    features = _features(bank)
    np.testing.assert_array_equal(features.on(PLACE).cpu().numpy(), features.array)
    assert _host_bytes(device) == features.array.nbytes
    assert reason in gpudirect.unavailable_reason() and bool(reason) == bool(gpudirect.unavailable_reason())


def test_what_is_damaged_while_it_is_read_is_refused(bank: Path, device: Device, kvikio: Kvikio) -> None:
    features = _features(bank)
    kvikio.after = lambda: flip(next(bank.glob("*resnet18*/embedding/c/1/0")))
    with pytest.raises(BankError, match=r"Chunk 1 .* is damaged"):
        features.on(PLACE)


def test_what_was_damaged_before_it_is_read_is_refused(bank: Path, device: Device, kvikio: Kvikio) -> None:
    features = _features(bank)
    flip(next(bank.glob("*resnet18*/embedding/c/1/0")))
    with pytest.raises(BankError, match=r"Chunk 1 .* is damaged"):
        features.on(PLACE)
    assert not kvikio.reads


def test_the_examination_says_what_is_there(kvikio: Kvikio) -> None:
    (line,) = [found for found in doctor.examine() if found.name == "kvikio"]
    assert line.status == "ok" and "26.10" in line.detail


def test_the_examination_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    gpudirect.unavailable_reason.cache_clear()
    monkeypatch.setitem(sys.modules, "kvikio", None)
    found = doctor._kvikio()
    gpudirect.unavailable_reason.cache_clear()
    assert found.status == "absent" and "pip install" in found.remedy and "host" in found.detail
