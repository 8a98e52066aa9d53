"""Features of a bank on their way to the device."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.floors import UP, Bound
from benchmarks.gpu.packages import require
from benchmarks.gpu.suite import Context, Skip, Verdict, measurement, proof
from benchmarks.gpu.targets import LOADING
from benchmarks.gpu.timing import same_bits
from benchmarks.speed.common import Spread
from benchmarks.speed.read import written_bank
from engine.evals.common.features import Features
from engine.runtime import synchronize, upload
from engine.runtime.resident import release_resident
from stores.bank.reader import Bank


def _bank(context: Context, rows: int, dim: int) -> Path:
    """Return a bank of random features, kept in the work folder."""
    folder = context.work / f"features-{rows}-{dim}"
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        written_bank(folder / "bank", rows, dim)
        (folder / "done").touch()
    return folder / "bank"


def _load(bank: Path, device: str) -> torch.Tensor:
    """Open a bank and bring its features to the device, in their stored precision, chunks checked."""
    release_resident()
    features = Features.from_bank(bank)
    resident = features.on(device) if device.startswith("cuda") else upload(features.array, device)
    synchronize(device)
    assert isinstance(resident, torch.Tensor), "the device has room"
    return resident


@proof("bank: features from disk to the device, bit for bit", seconds=10, rank=20)
def loading_agrees(context: Context) -> Verdict:
    bank = _bank(context, context.pick(20_000, 300), context.pick(512, 16))
    stored = np.array(Bank.open(bank).features().array)
    loaded = _load(bank, context.device)
    rows = np.arange(len(stored))[::-3].copy()
    some = upload(Features.from_bank(bank).array, context.device, rows)
    same = {
        "all_rows": same_bits(loaded, torch.from_numpy(stored)),
        "some_rows": same_bits(some, torch.from_numpy(stored[rows])),
    }
    return Verdict(same, all(same.values()), "the same bits")


@measurement(LOADING.check, seconds=25, rank=64)
def loading_rate(context: Context) -> Verdict:
    """Time opening a bank and uploading its features: with its files in the page cache, and without."""
    rows, dim = context.pick((224_316, 2048), (300, 16))
    bank = _bank(context, rows, dim)
    _load(bank, context.device)  # warm
    seconds: dict[str, list[float]] = {"in the page cache": [], "from the disk": []}
    for where in (*["in the page cache"] * 5, *["from the disk"] * 2):
        if where == "from the disk":
            _forget_files(bank)
        start = time.perf_counter()
        _load(bank, context.device)
        seconds[where].append(time.perf_counter() - start)
    numbers: dict[str, Any] = {"bytes": 2 * rows * dim}
    numbers |= {f"{where}, s": Spread.of(values) for where, values in seconds.items()}
    bound = Bound("copy", UP, 2.0 * rows * dim, f"{rows:,} x {dim} x 2 bytes to the device")
    warm = Spread.of(seconds["in the page cache"]).median
    return Verdict(
        numbers,
        limit="opening included; held against the target with the bank's files in the page cache",
        readings=(context.reading(LOADING.name, warm, "s", bound),),
    )


def _forget_files(bank: Path) -> None:
    """Ask the system to drop the bank's files from the page cache; it may keep some."""
    for path in bank.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@proof("bank: kvikio reads a file of features to the device", seconds=10, rank=34, needs=("kvikio", "cupy"))
def kvikio_agrees(context: Context) -> Verdict:
    """Read a file by kvikio (by GPUDirect where the machine has it) and compare its bytes."""
    if not context.on_cuda:
        raise Skip("kvikio reads to CUDA devices")
    kvikio, cupy = require("kvikio", "kvikio"), require("cupy", "cupy")
    size = context.pick(256 << 20, 1 << 20)
    path = context.work / "kvikio.bin"
    truth = np.random.default_rng(0).integers(0, 255, size, dtype=np.uint8)
    truth.tofile(path)
    with cupy.cuda.Device(torch.device(context.device).index or 0):
        into = cupy.empty(size, dtype=cupy.uint8)
        start = time.perf_counter()
        with kvikio.CuFile(str(path), "r") as file:
            count = file.read(into)
        seconds = time.perf_counter() - start
        same = bool((cupy.asnumpy(into) == truth).all())
    numbers = {"bytes": int(count), "GB/s": size / seconds / 1e9, "same_bytes": same}
    return Verdict(numbers, same and count == size, "the same bytes")
