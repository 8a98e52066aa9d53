"""Vision transformers as the `transformers` library builds them, from a configuration written here.

`transformers/NAME` stands for one row of `CONFIGS`; nothing is looked up by name on a hub, and no code of a
model repository is run. Weights come from a state dict, or from a folder with `config.json` and
`model.safetensors`, whose configuration must agree with the row.
"""

import importlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.errors import ModelError, WeightsError


@dataclass(frozen=True)
class Config:
    """One transformer.

    Attributes:
        kind: `transformers`' classes without `Config` and `Model`.
        values: arguments of the configuration.
        prefix: tokens before the patches (class token, registers).
    """

    kind: str
    values: Mapping[str, Any] = field(default_factory=dict)
    prefix: int = 1


def _dinov2(width: int, depth: int, heads: int) -> Config:
    sizes = {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads}
    return Config("Dinov2", {**sizes, "image_size": 518, "patch_size": 14})


def _dinov3(width: int, depth: int, heads: int) -> Config:
    sizes = {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads}
    return Config("DINOv3ViT", {**sizes, "intermediate_size": 4 * width, "num_register_tokens": 4}, prefix=5)


#: Sizes: arXiv 2304.07193 (DINOv2), 2508.10104 (DINOv3); RAD-DINO is a DINOv2 base (arXiv 2401.10815).
CONFIGS: dict[str, Config] = {
    "dinov2-small": _dinov2(384, 12, 6),
    "dinov2-base": _dinov2(768, 12, 12),
    "dinov2-large": _dinov2(1024, 24, 16),
    "dinov3-vits16": _dinov3(384, 12, 6),
    "dinov3-vitb16": _dinov3(768, 12, 12),
    "dinov3-vitl16": _dinov3(1024, 24, 16),
}


class Backbone(nn.Module):
    """The class token after the last norm; `forward_features` gives all tokens.

    Args:
        net: a `transformers` vision model whose `last_hidden_state` comes after its last norm.
        prefix: see `Config`.
    """

    def __init__(self, net: nn.Module, prefix: int) -> None:
        super().__init__()
        self.body, self.num_prefix_tokens = net, prefix

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        tokens: torch.Tensor = self.body(pixel_values=x).last_hidden_state
        return tokens

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_features(x)[:, 0]


def config(name: str) -> Config:
    """The row of a name; ModelError where there is none."""
    if name not in CONFIGS:
        raise ModelError(
            f"Architecture transformers/{name}",
            f"The name is one of {', '.join(CONFIGS)}",
            "name one of these",
        )
    return CONFIGS[name]


def build(name: str) -> nn.Module:
    """The transformer with fresh weights.

    Raises:
        ModelError: an unknown name, or the library is not installed, or too old for it.
    """
    row = config(name)
    made, model = _classes(row)
    return Backbone(model(made(**row.values)), row.prefix)


def _classes(row: Config) -> tuple[Any, Any]:
    try:
        transformers: Any = importlib.import_module("transformers")
        return getattr(transformers, f"{row.kind}Config"), getattr(transformers, f"{row.kind}Model")
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"transformers with {row.kind} is not installed",
            "transformers/NAME, dinov2, dinov3 and rad-dino need it",
            "pip install 'embank[hf]'",
        ) from error


def renamed(name: str, tensors: Mapping[str, torch.Tensor], where: str) -> dict[str, torch.Tensor]:
    """The tensors under the names that the installed release uses: its loader maps those of published files.

    Raises:
        WeightsError: the loader misses tensors, or finds others or misshapen ones.
    """
    row = config(name)
    made, model = _classes(row)
    talk: Any = importlib.import_module("transformers.utils.logging")
    before, bars = talk.get_verbosity(), talk.is_progress_bar_enabled()
    talk.set_verbosity(logging.CRITICAL)
    talk.disable_progress_bar()
    try:
        net, said = model.from_pretrained(
            None, config=made(**row.values), state_dict=dict(tensors), output_loading_info=True
        )
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        text = " ".join(str(error).split())[:200]
        raise _misfit(where, text) from error
    finally:
        talk.set_verbosity(before)
        if bars:
            talk.enable_progress_bar()
    wrong = {kind: sorted(map(str, keys)) for kind, keys in said.items() if keys}
    if wrong:
        raise _misfit(where, "; ".join(f"{kind}: {', '.join(keys[:3])}" for kind, keys in wrong.items()))
    state: dict[str, torch.Tensor] = net.state_dict()
    return state


def _misfit(where: str, found: str) -> WeightsError:
    return WeightsError(
        f"{where} does not fit the architecture: {found}",
        "All tensors must be there, with their shapes, and no others",
        "choose the architecture that the file was saved from",
    )


def weights_in(folder: Path, name: str) -> Path:
    """The weights file of a local model folder, after comparing its `config.json` with the row of `name`.

    Raises:
        WeightsError: no such files, or another configuration.
    """
    try:
        told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        said = {key: told.get(key) for key in config(name).values}
    except (OSError, ValueError, AttributeError) as error:
        raise _refuse(folder, f"has no readable config.json ({error})") from error
    different = [
        f"{k} {v!r} instead of {config(name).values[k]!r}"
        for k, v in said.items()
        if v != config(name).values[k]
    ]
    if different:
        raise _refuse(folder, f"has another configuration: {', '.join(different)}")
    for file in ("model.safetensors", "pytorch_model.bin"):
        if (folder / file).is_file():
            return folder / file
    raise _refuse(folder, "has neither model.safetensors nor pytorch_model.bin")


def _refuse(folder: Path, found: str) -> WeightsError:
    return WeightsError(
        f"{folder} {found}",
        "A model folder holds the configuration of this architecture and its weights",
        "name the architecture that it was saved from, or give the weights file itself",
    )
