"""Decoding: from image files to the pixels that a recipe specifies (the contract is in `protocol`)."""

import importlib.util

from engine.decode.protocol import (
    FAILURE_CODES,
    READ_AHEAD,
    DecodedBatch,
    Decoder,
    TrainingBatch,
    TrainingDecoder,
)
from engine.decode.random_crops import RandomCrops
from engine.decode.source import ImageSource, Limits
from engine.errors import Refused
from engine.recipes import Recipe

__all__ = [
    "DECODERS",
    "FAILURE_CODES",
    "READ_AHEAD",
    "DecodedBatch",
    "Decoder",
    "ImageSource",
    "Limits",
    "RandomCrops",
    "TrainingBatch",
    "TrainingDecoder",
    "available_decoders",
    "decoder_name",
    "make_decoder",
    "make_training_decoder",
]

#: Names that `make_decoder` accepts besides `auto`.
DECODERS = ("dali", "turbo", "reference")


def available_decoders() -> dict[str, str]:
    """Return name -> "" for each decoder that can be used here, else the reason and the remedy."""
    unavailable = dict.fromkeys(DECODERS, "")
    try:
        has_dali = importlib.util.find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:  # no package `nvidia` at all
        has_dali = False
    if not has_dali:
        unavailable["dali"] = "NVIDIA DALI is not installed; `pip install nvidia-dali-cuda130` (Linux x86-64)"
    return unavailable


_TURBO = "take another (`embank embed --decoder turbo`)"


def decoder_name(name: str, device: str, dct: bool = False) -> str:
    """Return the `name` of the decoder that `make_decoder` would build, without importing or building it.

    Raises:
        Refused: see `make_decoder`.
    """
    available = available_decoders()
    if name == "auto":
        name = "dali" if device.startswith("cuda") and not available["dali"] and not dct else "turbo"
    if name not in available:
        raise Refused(f"decoder {name!r}", f"It is one of auto, {', '.join(DECODERS)}", "choose one")
    if available[name]:
        raise Refused(f"decoder {name!r}", available[name], f"install it, or {_TURBO}")
    if dct and name != "turbo":
        raise Refused(f"DCT scaling with decoder {name!r}", "Only turbo has it", _TURBO)
    if name == "dali" and device.startswith("cuda"):
        return "dali-mixed"
    return "turbo-dct" if dct else name


def make_decoder(
    name: str, recipe: Recipe, *, device: str, threads: int, batch_size: int, dct: bool = False
) -> Decoder:
    """Build a decoder.

    Args:
        name: `dali`; `turbo` (torchvision); `reference` (Pillow); `auto` means dali on CUDA if it is
            installed, else turbo.
        recipe: to render.
        device: `cpu` or `cuda:N`, of the pixels. DALI also decodes JPEG on it.
        threads: for decoding.
        batch_size: rows of a batch, at most.
        dct: with `turbo`, scale large JPEGs in the DCT domain: several times faster, and off by at most 0.5
            of 255 levels on average.

    Raises:
        Refused: an unknown name, a decoder that is not available here, or `dct` without turbo.
    """
    full_name = decoder_name(name, device, dct)
    if full_name.startswith("dali"):
        from engine.decode.dali import DaliDecoder

        return DaliDecoder(recipe, device=device, threads=threads, batch_size=batch_size)
    from engine.decode import pillow
    from engine.decode import torchvision as turbo
    from engine.decode.threaded import ThreadedDecoder

    renders = {"reference": pillow.render_row, "turbo": turbo.render, "turbo-dct": turbo.render_dct}
    return ThreadedDecoder(full_name, renders[full_name], recipe, device=device, threads=threads)


def make_training_decoder(
    name: str, recipe: Recipe, crops: RandomCrops, *, device: str, threads: int, batch_size: int
) -> TrainingDecoder:
    """Build a decoder of random crops.

    Args:
        name: as in `make_decoder`.
        recipe: its side, interpolation, depth and rotation; its own resize and crop do not apply.
        crops: drawn for every row and epoch.
        device: `cpu` or `cuda:N`, of the pixels. DALI also decodes JPEG on it.
        threads: for decoding.
        batch_size: rows of a batch, at most.

    Raises:
        Refused: an unknown name, or a decoder that is not available here or renders no crops.
    """
    full_name = decoder_name(name, device)
    if full_name.startswith("dali"):
        from engine.decode.dali import DaliTrainingDecoder

        return DaliTrainingDecoder(recipe, crops, device=device, threads=threads, batch_size=batch_size)
    from engine.decode import pillow
    from engine.decode import torchvision as turbo
    from engine.decode.training import ThreadedTrainingDecoder

    renders = {"reference": pillow.render_crop, "turbo": turbo.render_crop}
    if full_name not in renders:
        raise Refused(
            f"random crops with decoder {full_name!r}",
            f"Only {', '.join(renders)} and dali have them",
            "take one",
        )
    return ThreadedTrainingDecoder(
        full_name, renders[full_name], recipe, crops, device=device, threads=threads
    )
