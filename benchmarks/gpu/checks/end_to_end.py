"""Files to bank: the whole run against its own stages, the usual loop, and what it copies and holds."""

import threading
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Any

from benchmarks.gpu.suite import Context, Skip, Verdict, measurement
from benchmarks.images import PHOTO, XRAY, ImageClass
from benchmarks.speed import embed as speed
from benchmarks.speed.common import interleaved, rate, ratio
from engine.embed.run import EmbedOptions
from engine.runtime import count_copies, device_memory, peak_device_bytes, usable_cores


class _MostUsed:
    """Most device memory in use while the body runs, whoever holds it; looked at every 20 ms."""

    def __init__(self, device: str) -> None:
        self._device, self._stop = device, threading.Event()
        self.bytes = 0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            free, total = device_memory(self._device)
            self.bytes = max(self.bytes, total - free)

    def __enter__(self) -> "_MostUsed":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()


def _case(context: Context, kind: ImageClass, rows: int, model: str) -> speed.Case:
    manifest = context.manifest([kind], min(rows, context.pick(256, 6)), rows)
    options = EmbedOptions(batch_size=context.pick(256, 4), chunk_rows=context.pick(256, 8))
    runtime = context.runtime(context.pick("bf16", "fp32"))
    spec = context.spec(f"random/{model}")
    work = context.work / "end-to-end"
    work.mkdir(exist_ok=True)
    return speed.Case(manifest, spec, runtime, options, work, context.pick(usable_cores(), 1))


def _fresh(case: speed.Case) -> Path:
    return Path(mkdtemp(dir=case.folder)) / "bank"


def _measure(context: Context, kind: ImageClass, rows: int, model: str) -> Verdict:
    case = _case(context, kind, rows, model)
    pixels = case.first_batch()
    last: list[Path] = []

    def whole() -> None:
        last.append(_fresh(case))
        case.embank(last[-1])

    contenders = {
        "embank": whole,
        "decode only": case.decode_only,
        "encode only": lambda: case.encode_only(pixels),
        "usual loop": case.loop,
    }
    peak_device_bytes(context.device, reset=True)
    seconds = interleaved(contenders, rounds=context.pick(3, 1), warm_up=not context.quick)
    stages = {"decode": seconds["decode only"], "encode": seconds["encode only"], "embank": seconds["embank"]}
    numbers: dict[str, Any] = {
        "rows": rows,
        "model": model,
        "precision": case.runtime.precision,
        "img/s": {name: rate(rows, of) for name, of in seconds.items()},
        "efficiency": speed.efficiency(stages, overlap=context.on_cuda),
        "times the usual loop": ratio(seconds["usual loop"], seconds["embank"]),
        "cosine to the usual loop": speed.agreement(last[-1], case.loop_file),
    }
    return Verdict(
        numbers,
        limit=f"Hoped for: efficiency {speed.TARGET_EFFICIENCY}, {speed.TARGET_GAIN} times the usual loop.",
    )


@measurement("end to end: xray-512, resnet50", seconds=90, rank=54)
def xrays(context: Context) -> Verdict:
    return _measure(context, XRAY, context.pick(16384, 16), context.pick("resnet50", "resnet18"))


@measurement("end to end: photo-640, resnet18", seconds=90, rank=70)
def photographs(context: Context) -> Verdict:
    if context.quick:
        raise Skip("one kind of file will do at tiny sizes")
    return _measure(context, PHOTO, 12288, "resnet18")


@measurement("end to end: bytes copied and memory held", seconds=20, rank=55)
def traffic(context: Context) -> Verdict:
    """Bytes between host and device of a whole run, as the profiler counts the copies of all libraries."""
    rows = context.pick(4096, 16)
    case = _case(context, XRAY, rows, context.pick("resnet50", "resnet18"))
    case.embank(_fresh(case))  # once before, so that libraries' own tables are on the device
    with _MostUsed(context.device) as most:
        peak_device_bytes(context.device, reset=True)
        case.embank(_fresh(case))
    with count_copies(context.device) as counted:
        case.embank(_fresh(case))
    files = sum((case.manifest.root / uri).stat().st_size for uri in case.manifest.uris)
    side, dim = case.spec.recipe.side, case.spec.dim
    numbers: dict[str, Any] = {
        "rows": rows,
        "counted by": "profiler (all copies of the process)" if counted else "arithmetic only",
        "by arithmetic, bytes an image": {
            "compressed file": files / rows,
            "decoded square": side * side * 3,
            "feature, float32": dim * 4,
        },
        "torch's peak, MiB": peak_device_bytes(context.device) / 2**20,
        "device's peak, all holders, MiB": most.bytes / 2**20,
    }
    if counted:
        numbers["counted, bytes an image"] = {
            "to the device": counted["to_device"] / rows,
            "to the host": counted["to_host"] / rows,
        }
        numbers["copies"] = counted["copies"]
    return Verdict(numbers)
