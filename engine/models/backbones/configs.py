"""Configurations of the `transformers` library's vision transformers; nothing here needs torch.

`transformers/NAME` stands for one row of `CONFIGS`; nothing is looked up by name on a hub, and no code of a
model repository is run. Weights come from a state dict, or from a folder with `config.json` and
`model.safetensors`, whose configuration must agree with the row.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import ModelError, WeightsError
from engine.models.catalog import suggest


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


def config(name: str) -> Config:
    """The row of a name; ModelError where there is none."""
    if name not in CONFIGS:
        raise ModelError(
            f"Architecture transformers/{name}",
            f"The name is one of {', '.join(CONFIGS)}",
            f"name {suggest.one_of([*suggest.close(name, CONFIGS), 'another of these'])}",
        )
    return CONFIGS[name]


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
