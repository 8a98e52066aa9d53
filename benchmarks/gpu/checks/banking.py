"""Whole runs into a bank on the device: against the CPU's bank, against themselves, and after a kill."""

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.faults.kill import differences
from benchmarks.gpu.suite import Context, Verdict, proof
from benchmarks.gpu.timing import distance
from benchmarks.images import PHOTO, PNG, XRAY, manifest_of
from engine.embed.run import EmbedOptions, embed
from engine.runtime import Runtime
from stores.bank.reader import Bank, FeatureSet
from stores.maintenance.verify import verify
from stores.manifest.manifest import Manifest

MODEL = "random/resnet18"
#: Precision -> least centred cosine of a banked row to the CPU's: decoder, arithmetic and storage together.
LEAST_COSINE = {"fp32": 0.99, "bf16": 0.97, "fp16": 0.99}
_WAIT_S = 120.0


def _manifest(context: Context) -> Manifest:
    """JPEG and PNG, grey and colour, with three files that must fail."""
    each = context.pick(150, 8)
    paths = [path for kind in (PHOTO, XRAY) for path in context.images(kind, each)]
    paths += context.images(PNG, context.pick(20, 2))
    folder = context.work / "bad-files"
    folder.mkdir(exist_ok=True)
    whole = paths[0].read_bytes()
    for place, (name, data) in enumerate(
        {"empty.jpg": b"", "half.jpg": whole[: len(whole) // 2], "text.png": b"not a picture"}.items()
    ):
        (folder / name).write_bytes(data)
        paths.insert(3 + 5 * place, folder / name)
    return manifest_of(paths, context.work)


def _options(context: Context, batch_size: int | None = None) -> EmbedOptions:
    return EmbedOptions(batch_size=batch_size or context.pick(64, 8), chunk_rows=context.pick(64, 8))


def _bank(context: Context, name: str) -> Path:
    path = context.work / "banks" / name
    shutil.rmtree(path, ignore_errors=True)
    path.parent.mkdir(exist_ok=True)
    return path


def _embed(context: Context, name: str, runtime: Runtime, batch_size: int | None = None) -> Path:
    bank = _bank(context, name)
    options = _options(context, batch_size)
    embed(_manifest(context), [context.spec(MODEL)], bank, runtime=runtime, options=options)
    return bank


def _compare(found: FeatureSet, truth: FeatureSet) -> dict[str, Any]:
    ok = truth.ok
    rows = [torch.from_numpy(np.asarray(one.array, np.float64)[ok]) for one in (found, truth)]
    return {
        "rows": len(ok),
        "failed": int((~ok).sum()),
        "same_status": bool(np.array_equal(found.status, truth.status)),
        "same_failures": [(f.row, f.code) for f in found.failures()]
        == [(f.row, f.code) for f in truth.failures()],
        "failed_rows_are_nan": bool(np.isnan(np.asarray(found.array)[~ok]).all()),
        **distance(*rows),
    }


@proof("bank: a run on the device, against a run on the CPU", seconds=30, rank=30)
def against_cpu(context: Context) -> Verdict:
    truth = Bank.open(_embed(context, "cpu", context.cpu)).features()
    numbers: dict[str, Any] = {}
    passed = True
    for precision in context.precisions:
        path = _embed(context, f"device-{precision}", context.runtime(precision))
        found = _compare(Bank.open(path).features(), truth)
        found["verified"] = verify(Bank.open(path)).ok
        flags = ("same_status", "same_failures", "failed_rows_are_nan", "verified")
        passed = passed and all(found[flag] for flag in flags) and found["failed"] == 3
        passed = passed and found["min_centred_cosine"] >= LEAST_COSINE[precision]
        numbers[precision] = found
    limits = ", ".join(f"{precision} {least}" for precision, least in LEAST_COSINE.items())
    return Verdict(numbers, passed, f"3 failed rows, masked alike; least centred cosine: {limits}")


@proof("bank: the same run twice is bit-identical", seconds=15, rank=31)
def repeat(context: Context) -> Verdict:
    first, second = (_embed(context, name, context.runtime("bf16")) for name in ("first", "second"))
    found = differences(second, first)
    return Verdict({"files_that_differ": len(found), "first": found[:3]}, not found, "none differs")


@proof("bank: a killed run, resumed, is bit-identical to an undisturbed one", seconds=60, rank=32)
def resumed(context: Context) -> Verdict:
    """The run dies of SIGKILL when a third of its chunks are committed; another process finishes it."""
    from benchmarks.faults import runner

    manifest, spec = _manifest(context), context.spec(MODEL)
    table, recipe = context.work / "kill.parquet", context.work / "kill-recipe.json"
    manifest.write(table)
    recipe.write_text(json.dumps(spec.recipe.to_dict()))
    job = runner.Job(
        str(table),
        str(recipe),
        MODEL,
        chunk_rows=context.pick(16, 4),
        batch_size=context.pick(16, 4),
        device=context.device,
        precision="bf16",
        decoder="auto",
    )
    truth, bank, log = _bank(context, "undisturbed"), _bank(context, "killed"), context.work / "kill.log"
    job.run(str(truth))
    chunks = Bank.open(truth).grid.chunks
    for attempt in range(3):
        shutil.rmtree(bank, ignore_errors=True)
        process = runner.start(job, bank, log)
        wanted = max(1, chunks // 3 - attempt * chunks // 10)
        _wait_for_markers(bank, wanted, process)
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)
        process.join(_WAIT_S)
        kept = _markers(bank)
        if process.exitcode == -signal.SIGKILL and kept < chunks:
            break
    else:
        raise RuntimeError(f"no kill fell into the run; it ended with {process.exitcode}: {_tail(log)}")
    job.run(str(bank))
    found = differences(bank, truth)
    numbers = {"chunks": chunks, "kept": kept, "files_that_differ": len(found), "first": found[:3]}
    return Verdict(
        numbers, not found and kept > 0, "killed between the first and the last chunk, none differs"
    )


def _markers(bank: Path) -> int:
    return sum(1 for _ in bank.glob(".embank/*/markers/*.json"))


def _wait_for_markers(bank: Path, wanted: int, process: Any) -> None:
    end = time.monotonic() + _WAIT_S
    while _markers(bank) < wanted and process.is_alive() and time.monotonic() < end:
        time.sleep(0.002)


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-500:] if log.exists() else ""


@proof("bank: another batch size gives the same features within rounding", seconds=15, rank=33)
def batch_sizes(context: Context) -> Verdict:
    numbers: dict[str, Any] = {}
    for precision in context.pick(("fp32", "bf16"), ("fp32",)):
        sizes = context.pick((64, 24), (8, 3))
        runtime = context.runtime(precision)
        banks = [_embed(context, f"batch-{precision}-{size}", runtime, size) for size in sizes]
        first, second = (Bank.open(bank).features() for bank in banks)
        found = _compare(second, first)
        found["same_bits"] = bool(np.array_equal(first.array, second.array, equal_nan=True))
        numbers[precision] = found
    least = {"fp32": 0.9999, "bf16": 0.98}
    passed = all(numbers[p]["min_centred_cosine"] >= least[p] and numbers[p]["same_status"] for p in numbers)
    return Verdict(numbers, passed, "least centred cosine: fp32 0.9999, bf16 0.98")
