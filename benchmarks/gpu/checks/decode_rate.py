"""Decoding only, by kind of file: DALI on the device, the CPU decoders, and Pillow in a DataLoader."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from benchmarks import loop
from benchmarks.gpu.floors import UP, Bound, host_jpeg, nvjpeg
from benchmarks.gpu.suite import Context, Skip, Verdict, measurement
from benchmarks.images import FUNDUS, LARGE_XRAY, PHOTO, PNG, XRAY, ImageClass
from benchmarks.speed.common import Spread
from engine.decode import available_decoders, make_decoder
from engine.embed.options import EmbedOptions, image_source
from engine.runtime import synchronize, usable_cores
from stores.manifest.manifest import Manifest

#: Batch size of decoders, the same as the engine's on CUDA.
BATCH = 256
ROUNDS = 3


def _decode_all(
    context: Context, name: str, dct: bool, manifest: Manifest, batch: int, closing: ExitStack
) -> Callable[[], float]:
    """Return a function that decodes the manifest once and returns seconds, with a warmed-up decoder."""
    threads = usable_cores()
    decoder = make_decoder(
        name, context.recipe, device=context.device, threads=threads, batch_size=batch, dct=dct
    )
    closing.callback(decoder.close)
    rows = len(manifest)
    batches = [range(i, min(i + batch, rows)) for i in range(0, rows, batch)]
    source = image_source(manifest, EmbedOptions())
    for _ in decoder.stream(source, batches[:2]):
        pass

    def once() -> float:
        start = time.perf_counter()
        for _ in decoder.stream(source, batches):
            pass
        synchronize(context.device)
        return time.perf_counter() - start

    return once


def _load_all(context: Context, manifest: Manifest, batch: int) -> Callable[[], float]:
    """Return the same with a DataLoader, which starts its workers each time, as it does for an epoch."""
    workers = context.pick(usable_cores(), 1)
    # Small enough batches that every worker has several.
    batch = max(1, min(batch, len(manifest) // (4 * workers)))
    paths = [manifest.root / uri for uri in manifest.uris]
    batches = loop.loader(paths, context.recipe, batch_size=batch, workers=workers, pin=context.on_cuda)

    def once() -> float:
        start = time.perf_counter()
        for tensor in batches:
            tensor.to(context.device, non_blocking=True)
        synchronize(context.device)
        return time.perf_counter() - start

    return once


def _measure(context: Context, kind: ImageClass, rows: int) -> Verdict:
    if context.quick and kind not in (XRAY, PNG):
        raise Skip("two kinds of file will do at tiny sizes")
    count = min(rows, context.pick(64, 4))
    manifest = context.manifest([kind], count, context.pick(rows, 8))
    batch = context.pick(BATCH, 4)
    contenders: dict[str, Callable[[], float]] = {}
    with ExitStack() as closing:
        for name, reason in available_decoders().items():
            if not reason and name != "reference":
                contenders[name] = _decode_all(context, name, False, manifest, batch, closing)
        if kind.quality:
            scaled = _decode_all(context, "turbo", True, manifest, batch, closing)
            contenders["turbo, DCT-scaled"] = scaled
        contenders["DataLoader with Pillow"] = _load_all(context, manifest, batch)
        turns = range(context.pick(ROUNDS, 1))
        rounds = [{name: once() for name, once in contenders.items()} for _ in turns]
    megapixels = kind.width * kind.height / 1e6
    numbers: dict[str, Any] = {
        "rows": len(manifest),
        "mean file, KB": sum(p.stat().st_size for p in context.images(kind, count)) / count / 1e3,
        "megapixels": megapixels,
    }
    for name in contenders:
        images_per_s = Spread.of([len(manifest) / seconds[name] for seconds in rounds])
        numbers[name] = {"img/s": images_per_s, "Mpx/s": images_per_s.median * megapixels}
        ratios = [seconds["DataLoader with Pillow"] / seconds[name] for seconds in rounds]
        numbers[name]["times the DataLoader"] = Spread.of(ratios)
    readings = [
        context.reading(f"decode {kind.name} by {name}", numbers[name]["img/s"].median, "img/s", *bounds)
        for name in contenders
        if (bounds := _bounds(context, name, kind, numbers["mean file, KB"]))
    ]
    return Verdict(numbers, readings=tuple(readings))


def _bounds(context: Context, name: str, kind: ImageClass, file_kb: float) -> list[Bound]:
    """Return the bounds of one image: the bare decoder of its kind of file, and the copy to the device.

    None where no ceiling is like it: PNG, DCT scaling, Pillow; and of kinds that the ceilings leave out.
    """
    if kind not in (XRAY, PHOTO) or name not in ("dali", "turbo"):
        return []
    nv = name == "dali" and context.on_cuda
    sent = 1e3 * file_kb if nv else 3.0 * context.side**2
    what = "the file" if nv else f"{context.side} x {context.side} x 3 bytes"
    decoder = nvjpeg(kind.name, 0) if name == "dali" else host_jpeg(kind.name)
    return [Bound("decode", decoder, 1.0, f"one image by {decoder}"), Bound("copy", UP, sent, what)]


def _register(kind: ImageClass, rows: int, seconds: float, rank: int) -> None:
    measurement(f"decode rate: {kind.name}", seconds=seconds, rank=rank)(
        lambda context: _measure(context, kind, rows)
    )


# Numbers of rows such that a round of the slowest contender takes some seconds on 16 cores.
for _rank, (_kind, _rows, _seconds) in enumerate(
    [(XRAY, 3072, 25), (PHOTO, 2048, 25), (LARGE_XRAY, 384, 30), (FUNDUS, 384, 30), (PNG, 512, 25)], start=70
):
    _register(_kind, _rows, _seconds, _rank)
