"""Vision transformers as the `transformers` library builds them, from a row of `backbones.configs`."""

import importlib
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from engine.errors import ModelError, WeightsError
from engine.models.backbones.configs import Config, config


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
