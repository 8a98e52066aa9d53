"""Configurations of the `transformers` library's vision transformers; nothing here needs torch.

`transformers/NAME` means a row of `CONFIGS`; nothing is looked up on a hub by name, and no code of a model
repository is run. Weights come from a state dict, or from a folder with `config.json` and
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
    """The configuration of one transformer.

    Attributes:
        kind: common beginning of the names of its classes, `{kind}Config` and `{kind}Model`.
        values: arguments of the configuration.
        prefix: number of tokens before the patches (class token, registers).
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
    """Return the configuration of a name. Raises ModelError for an unknown one."""
    if name not in CONFIGS:
        raise ModelError(
            f"Architecture transformers/{name}",
            f"The name is one of {', '.join(CONFIGS)}",
            f"name {suggest.either_of([*suggest.close_matches(name, CONFIGS), 'another of these'])}",
        )
    return CONFIGS[name]


def weights_in(folder: Path, name: str) -> Path:
    """Return the weights file of a local model folder, if its `config.json` agrees with the row of `name`.

    Raises:
        WeightsError: no such files, or another configuration.
    """
    expected = config(name).values
    try:
        document = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        stated = {key: document.get(key) for key in expected}
    except (OSError, ValueError, AttributeError) as error:
        raise _refuse(folder, f"has no readable config.json ({error})") from error
    different = [
        f"{key} {value!r} instead of {expected[key]!r}"
        for key, value in stated.items()
        if value != expected[key]
    ]
    if different:
        raise _refuse(folder, f"has another configuration: {', '.join(different)}")
    for file in ("model.safetensors", "pytorch_model.bin"):
        if (folder / file).is_file():
            return folder / file
    raise _refuse(folder, "has neither model.safetensors nor pytorch_model.bin")


def _refuse(folder: Path, fault: str) -> WeightsError:
    return WeightsError(
        f"{folder} {fault}",
        "A model folder holds the configuration of this architecture and its weights",
        "name the architecture that it was saved from, or give the weights file itself",
    )
