"""Ceilings of the machine, to hold rates against: copies, matrix products, decoders on their own."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.floors import DOWN, DOWN_PAGEABLE, GEMM, MEMORY, UP, UP_PAGEABLE, host_jpeg, nvjpeg
from benchmarks.gpu.packages import is_installed, require
from benchmarks.gpu.suite import Context, Verdict, measurement
from benchmarks.gpu.timing import gemm_rate, per_second, seconds_each
from benchmarks.images import PHOTO, XRAY
from benchmarks.speed.common import Spread
from engine.runtime import host_buffer, plain_flags, synchronize, usable_cores

#: Files of a batch of the bare decoders, and batches that are timed.
_BATCH, _BATCHES = 128, 8


@measurement("ceilings: copy bandwidth", seconds=10, rank=50)
def copies(context: Context) -> Verdict:
    size, budget = context.pick(256 << 20, 1 << 20), context.pick(1.0, 0.02)
    device = context.device
    on_device = torch.randint(0, 255, (size,), dtype=torch.uint8, device=device)
    other = torch.empty_like(on_device)
    plain = torch.randint(0, 255, (size,), dtype=torch.uint8)
    pinned = host_buffer((size,), torch.uint8, device)
    pinned.copy_(plain)
    routes = {
        UP: (on_device, pinned),
        UP_PAGEABLE: (on_device, plain),
        DOWN: (pinned, on_device),
        DOWN_PAGEABLE: (plain, on_device),
        MEMORY: (other, on_device),
    }
    numbers: dict[str, Any] = {"bytes": size}
    rates: dict[str, float] = {}
    for name, (to, source) in routes.items():
        seconds = seconds_each(device, partial(to.copy_, source, non_blocking=True), budget_s=budget)
        moved = size * (2 if name == MEMORY else 1)
        numbers[f"{name}, GB/s"] = per_second(moved / 1e9, seconds)
        rates[name] = moved / seconds.median
    return Verdict(numbers, ceilings=rates)


@measurement("ceilings: matrix products", seconds=12, rank=51)
def products(context: Context) -> Verdict:
    size, budget = context.pick(8192, 256), context.pick(1.0, 0.02)
    numbers: dict[str, Any] = {"size": size}
    cases = {"fp32": (torch.float32, False), "bf16": (torch.bfloat16, False), "fp64": (torch.float64, False)}
    if context.on_cuda:
        cases |= {"tf32": (torch.float32, True), "fp16": (torch.float16, False)}
    rates: dict[str, float] = {}
    for name, (dtype, tf32) in cases.items():
        with plain_flags(tf32_matmul=tf32):
            rate = gemm_rate(context.device, dtype, size, budget_s=budget)
        scaled = (x / 1e12 for x in (rate.median, rate.min, rate.max))
        numbers[f"{name}, TFLOP/s"] = Spread(rate.n, *scaled)
        rates[GEMM[name]] = rate.median
    return Verdict(numbers, limit="fp32 with TF32 off", ceilings=rates)


@measurement("ceilings: decoders, and their pixels", seconds=25, rank=52)
def decoders(context: Context) -> Verdict:
    """Decode without resizing: nvJPEG at hw_decoder_load 0 and 1, libjpeg-turbo on all cores; compare pixels.

    Skipped in part without DALI. Differences are of 255 levels, between pixels of the files' own size.
    """
    numbers: dict[str, Any] = {}
    rates: dict[str, float] = {}
    for kind in (XRAY, PHOTO):
        files = [p.read_bytes() for p in context.images(kind, context.pick(_BATCH, 4))]
        images = len(files) * context.pick(_BATCHES, 2)
        host, truth = _on_host(files, images)
        rates[host_jpeg(kind.name)] = host
        found: dict[str, Any] = {"libjpeg-turbo on all cores, img/s": host}
        if is_installed("nvidia.dali"):
            found |= _by_dali(context, kind.name, files, truth, rates)
        else:
            found["nvJPEG"] = "skipped: DALI is not installed"
        numbers[kind.name] = found
    return Verdict(numbers, ceilings=rates)


def _on_host(files: list[bytes], images: int) -> tuple[float, list[torch.Tensor]]:
    """Return images a second of libjpeg-turbo (torchvision's) on all cores, and its pixels."""
    from torchvision.io import ImageReadMode  # its import registers the operator

    encoded = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in files]
    with ThreadPoolExecutor(usable_cores()) as pool:

        def decode(data: torch.Tensor) -> torch.Tensor:
            pixels: torch.Tensor = torch.ops.image.decode_jpeg(data, ImageReadMode.RGB.value, False)
            return pixels

        pixels = list(pool.map(decode, encoded))
        start = time.perf_counter()
        for _ in pool.map(decode, (encoded[i % len(encoded)] for i in range(images))):
            pass
        return images / (time.perf_counter() - start), [p.permute(1, 2, 0) for p in pixels]


def _by_dali(
    context: Context, kind: str, files: list[bytes], truth: list[torch.Tensor], rates: dict[str, float]
) -> dict[str, Any]:
    """Measure DALI's decoder at each load, adding to `rates`, and state how its pixels differ."""
    require("nvidia.dali", "DALI")
    numbers: dict[str, Any] = {}
    pixels: dict[int, list[torch.Tensor]] = {}
    batches = context.pick(_BATCHES, 2)
    for load in (0, 1) if context.on_cuda else (0,):
        decoder = _BareDecoder(context, files, load)
        pixels[load] = decoder.pixels()
        spread = Spread.of([decoder.images_per_s(batches) for _ in range(context.pick(3, 1))])
        numbers[f"hw_decoder_load {load}, img/s"] = spread
        numbers[f"hw_decoder_load {load}, against libjpeg-turbo"] = _difference(pixels[load], truth)
        rates[nvjpeg(kind, load)] = spread.median
    if 1 in pixels:
        numbers["hw_decoder_load 1 against 0"] = _difference(pixels[1], pixels[0])
    return numbers


class _BareDecoder:
    """A pipeline of DALI that decodes the same files again and again, and does nothing else."""

    def __init__(self, context: Context, files: list[bytes], load: int) -> None:
        from engine.decode.dali import graph as dali

        self._device, self._cuda = context.device, context.on_cuda
        self._files = [np.frombuffer(data, np.uint8) for data in files]
        options = {"hw_decoder_load": float(load), "jpeg_fancy_upsampling": True} if self._cuda else {}
        self._pipeline = dali.Pipeline(
            len(files),
            usable_cores(),
            torch.device(context.device).index or 0 if self._cuda else None,
            prefetch_queue_depth=2,
            exec_pipelined=False,
            exec_dynamic=True,
        )
        with self._pipeline:
            decoded = dali.fn.decoders.image(
                dali.fn.external_source(name="encoded"),
                device="mixed" if self._cuda else "cpu",
                output_type=dali.types.RGB,
                adjust_orientation=False,
                **options,
            )
            self._pipeline.set_outputs(decoded)
        self._pipeline.build()

    def pixels(self) -> list[torch.Tensor]:
        """Decode each file once, uint8 [height, width, 3] on the CPU."""
        self._schedule()
        (decoded,) = self._pipeline.outputs()
        on_host = decoded.as_cpu() if self._cuda else decoded
        return [torch.from_numpy(np.array(on_host.at(i))) for i in range(len(self._files))]

    def images_per_s(self, batches: int) -> float:
        """Decode all files as many times, two batches in flight."""
        start = time.perf_counter()
        self._schedule()
        for number in range(batches):
            if number + 1 < batches:
                self._schedule()
            self._pipeline.outputs()
        synchronize(self._device)
        return batches * len(self._files) / (time.perf_counter() - start)

    def _schedule(self) -> None:
        self._pipeline.feed_input("encoded", self._files)
        self._pipeline.schedule_run()


def _difference(pixels: list[torch.Tensor], truth: list[torch.Tensor]) -> dict[str, Any]:
    """Compare images with others of their sizes: mean and largest difference, images with the same bits."""
    apart = [(a.int() - b.int()).abs() for a, b in zip(pixels, truth, strict=True)]
    return {
        "images": len(apart),
        "identical": sum(not bool(image.any()) for image in apart),
        "mean": float(np.mean([float(image.float().mean()) for image in apart])),
        "worst image's mean": max(float(image.float().mean()) for image in apart),
        "max": max(int(image.max()) for image in apart),
    }
