"""From files to a bank: complete runs compared with their stages and the usual loop; copies and memory."""

import threading
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Any

from benchmarks.gpu.floors import (
    GEMM,
    UP,
    Bound,
    Reading,
    host_jpeg,
    nvjpeg,
    resnet50_gemm,
    share_of_stage,
    vit_flop,
)
from benchmarks.gpu.suite import Context, Skip, Verdict, measurement
from benchmarks.gpu.targets import END_TO_END, VIT
from benchmarks.images import PHOTO, XRAY, ImageClass
from benchmarks.speed import embed as speed
from benchmarks.speed.common import interleaved, rate, ratio
from engine.decode import decoder_name
from engine.embed.run import EmbedOptions
from engine.models.backbones import architecture_cache
from engine.models.catalog.lookup import ModelSpec
from engine.models.checkpoints.sources import Seeded
from engine.runtime import count_copies, device_memory, peak_device_bytes, usable_cores

_SHARE = "efficiency: the slower stage's time over the complete run's, bank, weights and decoder made in each"


class _PeakMemory:
    """Peak of device memory in use by all processes while the body runs, sampled every 20 ms."""

    def __init__(self, device: str) -> None:
        self._device, self._stop = device, threading.Event()
        self.bytes = 0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            free, total = device_memory(self._device)
            self.bytes = max(self.bytes, total - free)

    def __enter__(self) -> "_PeakMemory":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()


def _case(context: Context, kind: ImageClass, rows: int, spec: ModelSpec) -> speed.Case:
    manifest = context.manifest([kind], min(rows, context.pick(256, 6)), rows)
    options = EmbedOptions(batch_size=context.pick(256, 4), chunk_rows=context.pick(256, 8))
    runtime = context.runtime(context.pick("bf16", "fp32"))
    work = context.work / "end-to-end"
    work.mkdir(exist_ok=True)
    return speed.Case(manifest, spec, runtime, options, work, context.pick(usable_cores(), 1))


def _fresh(case: speed.Case) -> Path:
    return Path(mkdtemp(dir=case.folder)) / "bank"


@dataclass(frozen=True)
class _Run:
    """Complete runs beside their stages, in rounds."""

    case: speed.Case
    numbers: dict[str, Any]
    rate: float
    share: Reading


def _measure(
    context: Context, kind: ImageClass, rows: int, spec: ModelSpec, share_name: str, *, rounds: int = 2
) -> _Run:
    """Time complete runs, decoding alone and encoding alone, once each in every round."""
    case = _case(context, kind, rows, spec)
    pixels = case.first_batch()
    contenders = {
        "embank": lambda: case.embank(_fresh(case)),
        "decode only": case.decode_only,
        "encode only": lambda: case.encode_only(pixels),
    }
    seconds = interleaved(contenders, rounds=context.pick(rounds, 1), warm_up=not context.quick)
    stages = {"decode": seconds["decode only"], "encode": seconds["encode only"], "embank": seconds["embank"]}
    efficiency = speed.efficiency(stages, overlap=context.on_cuda)
    numbers: dict[str, Any] = {
        "rows": rows,
        "model": spec.slug,
        "precision": case.runtime.precision,
        "decoder": decoder_name(case.options.decoder, context.device),
        "img/s": {name: rate(rows, of) for name, of in seconds.items()},
        "efficiency": efficiency,
    }
    slower = max(("decode", "encode"), key=lambda stage: min(stages[stage]))
    share = share_of_stage(share_name, efficiency.median, slower)
    return _Run(case, numbers, numbers["img/s"]["embank"].median, share)


def _bounds(context: Context, kind: ImageClass, decoder: str, gemm: Bound) -> tuple[Bound, ...]:
    """Return the bounds of one image on its way from file to bank."""
    side = context.side
    if decoder.startswith("dali") and context.on_cuda:
        return gemm, Bound("decode", nvjpeg(kind.name, 0), 1.0, "one image by nvJPEG, hw_decoder_load 0")
    return (
        gemm,
        Bound("decode", host_jpeg(kind.name), 1.0, "one image by libjpeg-turbo on all cores"),
        Bound("copy", UP, 3.0 * side**2, f"{side} x {side} x 3 bytes to the device"),
    )


@measurement(END_TO_END.check, seconds=30, rank=66)
def xrays(context: Context) -> Verdict:
    spec = context.spec(f"random/{context.pick('resnet50', 'resnet18')}")
    run = _measure(context, XRAY, context.pick(8192, 16), spec, END_TO_END.name)
    bounds = _bounds(context, XRAY, run.numbers["decoder"], resnet50_gemm("bf16"))
    reading = context.reading("ResNet-50 end to end, images", run.rate, "img/s", *bounds)
    return Verdict(run.numbers, limit=_SHARE, readings=(run.share, reading))


@measurement(VIT.check, seconds=60, rank=67, needs=("timm",))
def vit(context: Context) -> Verdict:
    """Measure a ViT-L/14 at 224 x 224: 257 tokens of 1,024, 24 layers, drawn weights."""
    if context.quick:
        raise Skip("building a ViT-L/14 takes longer than everything else at tiny sizes")
    run = _measure(context, XRAY, 8192, _vit_spec(context), "ViT-L/14 end to end, share")
    formula = "24 layers x (24 n d^2 + 4 n^2 d) + patches, n = 257, d = 1,024 flop an image, bf16"
    gemm = Bound("gemm", GEMM["bf16"], vit_flop(257, 1024, 24, 14), formula)
    bounds = _bounds(context, XRAY, run.numbers["decoder"], gemm)
    reading = context.reading(VIT.name, run.rate, "img/s", *bounds)
    return Verdict(run.numbers, limit=_SHARE, readings=(reading, run.share))


def _vit_spec(context: Context) -> ModelSpec:
    """Return timm's ViT-L/14 with weights drawn from a seed, as `random/NAME` does for torchvision's."""
    architecture, seed = "timm/vit_large_patch14_clip_224", 0
    weights = Seeded().find(architecture, seed)
    layer, notes = architecture_cache.layer(architecture)
    dim = architecture_cache.dimension(architecture, context.side)
    return ModelSpec(
        "random-vit-l-14",
        architecture,
        weights.text,
        None,
        weights.sha256,
        context.recipe,
        dim,
        layer,
        notes,
        seed,
    )


@measurement("end to end: photo-640, resnet18", seconds=40, rank=79)
def photographs(context: Context) -> Verdict:
    if context.quick:
        raise Skip("one kind of file will do at tiny sizes")
    run = _measure(context, PHOTO, 8192, context.spec("random/resnet18"), "ResNet-18 end to end")
    return Verdict(run.numbers, limit=_SHARE, readings=(run.share,))


@measurement("end to end: xray-512, resnet50, against the usual loop", seconds=60, rank=80)
def usual_loop(context: Context) -> Verdict:
    """Time complete runs and the usual loop in turns, and compare their features."""
    spec = context.spec(f"random/{context.pick('resnet50', 'resnet18')}")
    rows = context.pick(4096, 16)
    case = _case(context, XRAY, rows, spec)
    last: list[Path] = []

    def complete_run() -> None:
        last.append(_fresh(case))
        case.embank(last[-1])

    seconds = interleaved(
        {"embank": complete_run, "usual loop": case.loop},
        rounds=context.pick(2, 1),
        warm_up=not context.quick,
    )
    numbers: dict[str, Any] = {
        "img/s": {name: rate(rows, of) for name, of in seconds.items()},
        "times the usual loop": ratio(seconds["usual loop"], seconds["embank"]),
        "cosine to the usual loop": speed.agreement(last[-1], case.loop_file),
    }
    return Verdict(numbers, limit=f"Hoped for: {speed.TARGET_GAIN} times the usual loop.")


@measurement("end to end: bytes copied and memory held", seconds=20, rank=77)
def traffic(context: Context) -> Verdict:
    """Measure the bytes copied between host and device in a complete run, by all libraries."""
    rows = context.pick(4096, 16)
    case = _case(context, XRAY, rows, context.spec(f"random/{context.pick('resnet50', 'resnet18')}"))
    case.embank(_fresh(case))  # once before, so that the tables of libraries are already on the device
    with _PeakMemory(context.device) as peak:
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
        "device's peak, all holders, MiB": peak.bytes / 2**20,
    }
    if counted:
        numbers["counted, bytes an image"] = {
            "to the device": counted["to_device"] / rows,
            "to the host": counted["to_host"] / rows,
        }
        numbers["copies"] = counted["copies"]
    return Verdict(numbers)
