"""Pixels decoded on the device, compared with Pillow's."""

from dataclasses import replace
from typing import Any

import torch

from benchmarks.gpu.suite import Context, Verdict, proof
from benchmarks.gpu.timing import same_bits
from benchmarks.images import FUNDUS, LARGE_XRAY, PHOTO, PNG, XRAY, manifest_of
from engine.decode import make_decoder
from engine.decode.parity import TOLERANCE, pixel_parity
from engine.decode.protocol import DecodedBatch
from engine.decode.source import ImageSource
from engine.embed.options import EmbedOptions, image_source

_444 = replace(PHOTO, name="photo-444", subsampling="4:4:4")
_PROGRESSIVE = replace(PHOTO, name="photo-progressive", progressive=True)
_ODD = replace(PHOTO, name="photo-odd", width=641, height=479)
_KINDS = (XRAY, PHOTO, _444, _PROGRESSIVE, _ODD, FUNDUS, LARGE_XRAY, PNG)


def _decode(context: Context, name: str, device: str, source: ImageSource, rows: int) -> DecodedBatch:
    """Decode all rows in one batch."""
    decoder = make_decoder(name, context.recipe, device=device, threads=4, batch_size=rows)
    try:
        batch = next(iter(decoder.stream(source, [range(rows)])))
        return replace(batch, pixels=batch.pixels.cpu().clone())
    finally:
        decoder.close()


def _parity(context: Context, name: str, device: str) -> Verdict:
    numbers: dict[str, Any] = {}
    passed = True
    for kind in context.pick(_KINDS, (XRAY, PHOTO)):
        count = context.pick(16, 2)
        source = image_source(context.manifest([kind], count), EmbedOptions())
        decoder = make_decoder(name, context.recipe, device=device, threads=4, batch_size=16)
        try:
            parity = pixel_parity(source, range(count), context.recipe, decoder)
        finally:
            decoder.close()
        passed = passed and bool(parity["passed"])
        numbers[kind.name] = {
            key: parity[key] for key in ("n", "mean", "worst_image_mean", "max", "disagreed")
        }
    return Verdict(numbers, passed, f"each image's mean at most {TOLERANCE} of 255, all rows agreed on")


@proof("decode: DALI on the device, against Pillow", seconds=25, rank=13, needs=("nvidia.dali",))
def dali_on_device(context: Context) -> Verdict:
    return _parity(context, "dali", context.device)


@proof("decode: turbo uploaded to the device, against Pillow", seconds=15, rank=12)
def turbo_on_device(context: Context) -> Verdict:
    return _parity(context, "turbo", context.device)


@proof("decode: turbo on the device is turbo on the CPU, bit for bit", seconds=5, rank=11)
def upload(context: Context) -> Verdict:
    count = context.pick(48, 6)
    source = image_source(context.manifest([XRAY, PHOTO], count // 2), EmbedOptions())
    on_cpu, on_device = (
        _decode(context, "turbo", device, source, count) for device in ("cpu", context.device)
    )
    different = int((on_cpu.pixels != on_device.pixels).flatten(1).any(dim=1).sum())
    return Verdict({"rows": count, "rows_that_differ": different}, different == 0, "none differs")


@proof("decode: bad files fail as in Pillow, and leave their neighbours' bits alone", seconds=10, rank=14)
def neighbours(context: Context) -> Verdict:
    good = context.images(PHOTO, context.pick(12, 4))
    sound_file = good[0].read_bytes()
    folder = context.work / "bad"
    folder.mkdir(exist_ok=True)
    bad = {
        "empty.jpg": b"",
        "half.jpg": sound_file[: len(sound_file) // 2],
        "page.jpg": b"<html></html>",
        "header-only.jpg": sound_file[:100],
    }
    for file, data in bad.items():
        (folder / file).write_bytes(data)
    mixed = [*good[:2], *(folder / file for file in bad), *good[2:]]
    slots = [0, 1, *range(2 + len(bad), len(mixed))]
    numbers: dict[str, Any] = {}
    passed = True
    for name in _device_decoders(context):
        alone = _decode(context, name, context.device, _source(context, good), len(good))
        among = _decode(context, name, context.device, _source(context, mixed), len(mixed))
        truth = _decode(context, "reference", "cpu", _source(context, mixed), len(mixed))
        codes = {slot: bad.code for slot, bad in among.failures.items()}
        same_codes = codes == {slot: bad.code for slot, bad in truth.failures.items()}
        numbers[name] = {
            "failed": len(codes),
            "same_rows_and_codes": same_codes,
            "neighbours_same_bits": same_bits(alone.pixels, among.pixels[slots]),
            "failed_rows_are_zero": not bool(among.pixels[sorted(codes)].any()),
        }
        passed = passed and len(codes) == len(bad) and all(map(bool, numbers[name].values()))
    return Verdict(numbers, passed, f"{len(bad)} failed, everything else true")


def _source(context: Context, paths: list[Any]) -> ImageSource:
    # manifest_of names its table by the number of rows.
    return image_source(manifest_of(paths, context.work), EmbedOptions())


def _device_decoders(context: Context) -> list[str]:
    from engine.decode import available_decoders

    return [name for name, reason in available_decoders().items() if not reason and name != "reference"]


@proof("decode: pixels do not depend on the batch they are in", seconds=10, rank=15)
def batches(context: Context) -> Verdict:
    count = context.pick(24, 6)
    source = image_source(context.manifest([PHOTO, XRAY], count // 2), EmbedOptions())
    numbers: dict[str, Any] = {}
    for name in _device_decoders(context):
        one_batch = _decode(context, name, context.device, source, count).pixels
        decoder = make_decoder(name, context.recipe, device=context.device, threads=4, batch_size=3)
        try:
            parts = decoder.stream(source, [range(i, i + 3) for i in range(0, count, 3)])
            pieces = torch.cat([batch.pixels.cpu().clone() for batch in parts])
        finally:
            decoder.close()
        numbers[name] = {"same_bits": same_bits(one_batch, pieces)}
    return Verdict(numbers, all(same["same_bits"] for same in numbers.values()), "the same bits")
