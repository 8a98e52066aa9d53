"""Rendering recipes: image files in, pixels for backbones out (`protocol` says exactly what)."""

import importlib.util

from engine.decode.protocol import FAILURE_CODES, READ_AHEAD, DecodedBatch, Decoder
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
    "available_decoders",
    "decoder_name",
    "make_decoder",
]

#: Names that `make_decoder` takes besides `auto`.
DECODERS = ("dali", "turbo", "reference")


def available_decoders() -> dict[str, str]:
    """Name -> "" if it can be used here, else why not and what to do."""
    found = dict.fromkeys(DECODERS, "")
    try:
        has_dali = importlib.util.find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:  # no package `nvidia` at all
        has_dali = False
    if not has_dali:
        found["dali"] = "NVIDIA DALI is not installed; `pip install nvidia-dali-cuda130` (Linux x86-64)"
    return found


_TURBO = "take another (`embank embed --decoder turbo`)"


def decoder_name(name: str, device: str, dct: bool = False) -> str:
    """The `name` that `make_decoder`'s decoder will have; imports and makes nothing. Raises as that does."""
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
        name: `dali`; `turbo` (torchvision); `reference` (Pillow); `auto` is dali on CUDA where it is
            installed, else turbo.
        recipe: what to render.
        device: `cpu` or `cuda:N`; where the pixels shall be. DALI decodes JPEG there too.
        threads: for decoding.
        batch_size: the most rows of a batch.
        dct: with `turbo`, scale large JPEGs within their DCT: several times faster, at most 0.5/255 off
            on average.

    Raises:
        Refused: an unknown name, one that is not available here, or `dct` without turbo.
    """
    full_name = decoder_name(name, device, dct)
    if full_name.startswith("dali"):
        from engine.decode.dali import DaliDecoder

        return DaliDecoder(recipe, device=device, threads=threads, batch_size=batch_size)
    from engine.decode import pillow
    from engine.decode import torchvision as turbo
    from engine.decode.threaded import PooledDecoder

    renders = {"reference": pillow.render_row, "turbo": turbo.render, "turbo-dct": turbo.render_dct}
    return PooledDecoder(full_name, renders[full_name], recipe, device=device, threads=threads)
