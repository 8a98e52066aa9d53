"""Vision transformers of the `transformers` library, built from the rows of `backbones.configs`."""

import importlib
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from engine.errors import ModelError, WeightsError
from engine.models.backbones.configs import Config, config


class Backbone(nn.Module):
    """A transformer whose feature is the class token after its last norm; `forward_features` returns all.

    Args:
        net: a `transformers` vision model whose `last_hidden_state` comes after its last norm.
        prefix: number of tokens before the patches.
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
    """Build the transformer with fresh weights.

    Raises:
        ModelError: an unknown name, or the library is not installed, or too old for it.
    """
    row = config(name)
    config_class, model_class = _classes(row)
    return Backbone(model_class(config_class(**row.values)), row.prefix)


def _classes(row: Config) -> tuple[Any, Any]:
    """Return the library's classes of the configuration and of the model."""
    try:
        transformers: Any = importlib.import_module("transformers")
        return getattr(transformers, f"{row.kind}Config"), getattr(transformers, f"{row.kind}Model")
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"transformers with {row.kind} is not installed",
            "transformers/NAME, dinov2, dinov3 and rad-dino need it",
            "pip install 'embank[hf]'",
        ) from error


def rename_tensors(name: str, tensors: Mapping[str, torch.Tensor], where: str) -> dict[str, torch.Tensor]:
    """Give a published file's tensors the names of the installed release, whose own loader maps them.

    Args:
        name: of the transformer, see `CONFIGS`.
        tensors: of the file, by name.
        where: name of the file, for errors.

    Raises:
        WeightsError: the loader misses tensors, or finds unexpected or misshapen ones.
    """
    row = config(name)
    config_class, model_class = _classes(row)
    library_logging: Any = importlib.import_module("transformers.utils.logging")
    verbosity, bars = library_logging.get_verbosity(), library_logging.is_progress_bar_enabled()
    library_logging.set_verbosity(logging.CRITICAL)
    library_logging.disable_progress_bar()
    try:
        net, loading_info = model_class.from_pretrained(
            None, config=config_class(**row.values), state_dict=dict(tensors), output_loading_info=True
        )
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        text = " ".join(str(error).split())[:200]
        raise _misfit(where, text) from error
    finally:
        library_logging.set_verbosity(verbosity)
        if bars:
            library_logging.enable_progress_bar()
    problems = {kind: sorted(map(str, keys)) for kind, keys in loading_info.items() if keys}
    if problems:
        raise _misfit(where, "; ".join(f"{kind}: {', '.join(keys[:3])}" for kind, keys in problems.items()))
    state: dict[str, torch.Tensor] = net.state_dict()
    return state


def _misfit(where: str, problem: str) -> WeightsError:
    return WeightsError(
        f"{where} does not fit the architecture: {problem}",
        "All tensors must be there, with their shapes, and no others",
        "choose the architecture that the file was saved from",
    )
