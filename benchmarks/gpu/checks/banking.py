"""Complete runs into a bank on the device: compared with the CPU, repeated, and resumed after a kill."""

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
#: Precision -> minimum centred cosine of a stored row to the CPU's, for decoder, arithmetic and storage
#: together.
LEAST_COSINE = {"fp32": 0.99, "bf16": 0.97, "fp16": 0.99}
_WAIT_S = 120.0


def _manifest(context: Context) -> Manifest:
    """Return a manifest of JPEG and PNG, grey and colour, with three files that must fail."""
    images_per_kind = context.pick(150, 8)
    paths = [path for kind in (PHOTO, XRAY) for path in context.images(kind, images_per_kind)]
    paths += context.images(PNG, context.pick(20, 2))
    folder = context.work / "bad-files"
    folder.mkdir(exist_ok=True)
    sound_file = paths[0].read_bytes()
    for position, (name, data) in enumerate(
        {
            "empty.jpg": b"",
            "half.jpg": sound_file[: len(sound_file) // 2],
            "text.png": b"not a picture",
        }.items()
    ):
        (folder / name).write_bytes(data)
        paths.insert(3 + 5 * position, folder / name)
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


def _compare(device_features: FeatureSet, cpu_features: FeatureSet) -> dict[str, Any]:
    ok = cpu_features.ok
    rows = [
        torch.from_numpy(np.asarray(features.array, np.float64)[ok])
        for features in (device_features, cpu_features)
    ]
    return {
        "rows": len(ok),
        "failed": int((~ok).sum()),
        "same_status": bool(np.array_equal(device_features.status, cpu_features.status)),
        "same_failures": [(f.row, f.code) for f in device_features.failures()]
        == [(f.row, f.code) for f in cpu_features.failures()],
        "failed_rows_are_nan": bool(np.isnan(np.asarray(device_features.array)[~ok]).all()),
        **distance(*rows),
    }


@proof("bank: a run on the device, against a run on the CPU", seconds=30, rank=10)
def against_cpu(context: Context) -> Verdict:
    truth = Bank.open(_embed(context, "cpu", context.cpu)).features()
    numbers: dict[str, Any] = {}
    passed = True
    for precision in context.precisions:
        path = _embed(context, f"device-{precision}", context.runtime(precision))
        comparison = _compare(Bank.open(path).features(), truth)
        comparison["verified"] = verify(Bank.open(path)).ok
        flags = ("same_status", "same_failures", "failed_rows_are_nan", "verified")
        passed = passed and all(comparison[flag] for flag in flags) and comparison["failed"] == 3
        passed = passed and comparison["min_centred_cosine"] >= LEAST_COSINE[precision]
        numbers[precision] = comparison
    limits = ", ".join(f"{precision} {minimum}" for precision, minimum in LEAST_COSINE.items())
    return Verdict(numbers, passed, f"3 failed rows, masked alike; least centred cosine: {limits}")


@proof("bank: the same run twice is bit-identical", seconds=15, rank=18)
def repeat(context: Context) -> Verdict:
    first, second = (_embed(context, name, context.runtime("bf16")) for name in ("first", "second"))
    differing = differences(second, first)
    return Verdict(
        {"files_that_differ": len(differing), "first": differing[:3]}, not differing, "none differs"
    )


@proof("bank: a killed run, resumed, is bit-identical to an undisturbed one", seconds=30, rank=17)
def resumed(context: Context) -> Verdict:
    """Kill a run when a third of its chunks are committed, and finish it in another process."""
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
        target = max(1, chunks // 3 - attempt * chunks // 10)
        _wait_for_markers(bank, target, process)
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)
        process.join(_WAIT_S)
        committed = _markers(bank)
        if process.exitcode == -signal.SIGKILL and committed < chunks:
            break
    else:
        raise RuntimeError(f"no kill fell into the run; it ended with {process.exitcode}: {_tail(log)}")
    job.run(str(bank))
    differing = differences(bank, truth)
    numbers = {
        "chunks": chunks,
        "kept": committed,
        "files_that_differ": len(differing),
        "first": differing[:3],
    }
    return Verdict(
        numbers, not differing and committed > 0, "killed between the first and the last chunk, none differs"
    )


def _markers(bank: Path) -> int:
    return sum(1 for _ in bank.glob(".embank/*/markers/*.json"))


def _wait_for_markers(bank: Path, target: int, process: Any) -> None:
    end = time.monotonic() + _WAIT_S
    while _markers(bank) < target and process.is_alive() and time.monotonic() < end:
        time.sleep(0.002)


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-500:] if log.exists() else ""


@proof("bank: another batch size gives the same features within rounding", seconds=15, rank=19)
def batch_sizes(context: Context) -> Verdict:
    numbers: dict[str, Any] = {}
    for precision in context.pick(("fp32", "bf16"), ("fp32",)):
        sizes = context.pick((64, 24), (8, 3))
        runtime = context.runtime(precision)
        banks = [_embed(context, f"batch-{precision}-{size}", runtime, size) for size in sizes]
        first, second = (Bank.open(bank).features() for bank in banks)
        comparison = _compare(second, first)
        comparison["same_bits"] = bool(np.array_equal(first.array, second.array, equal_nan=True))
        numbers[precision] = comparison
    minimum = {"fp32": 0.9999, "bf16": 0.98}
    passed = all(
        numbers[p]["min_centred_cosine"] >= minimum[p] and numbers[p]["same_status"] for p in numbers
    )
    return Verdict(numbers, passed, "least centred cosine: fp32 0.9999, bf16 0.98")
