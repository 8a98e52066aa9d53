"""The network of finetuning: a backbone with its weights, and a linear head."""

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import nn

from engine.models import ModelSpec
from engine.models.backbones import architectures
from engine.models.forward.encoder import build_with_weights
from engine.normalise import normalise
from engine.recipes import Recipe

Tensors = Mapping[str, torch.Tensor]


class FinetuneNetwork(nn.Module):
    """A headless backbone and a linear head on its feature.

    Args:
        backbone: float32 [B, 3, S, S] -> [B, d].
        head: [B, d] -> [B, K].
        recipe: whose normalisation the pixels get, in float32.
    """

    def __init__(self, backbone: nn.Module, head: nn.Linear, recipe: Recipe) -> None:
        super().__init__()
        self.backbone, self.head, self._recipe = backbone, head, recipe

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return logits [B, K] of pixels, uint8 [B, S, S, 3]."""
        values = normalise(pixels, self._recipe)
        logits: torch.Tensor = self.head(self.backbone(values))
        return logits

    @property
    def parts(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """The tensors of the backbone, under the names of its library, and of the head: `weight`, `bias`."""
        return dict(architectures.body(self.backbone).state_dict()), dict(self.head.state_dict())


def build_network(spec: ModelSpec, outputs: int, seed: int) -> FinetuneNetwork:
    """Build a model's backbone with its weights, and a head as `torch.nn.Linear` draws it, from a seed.

    Raises:
        ModelError, WeightsError: as `engine.models.forward.encoder.build_with_weights`.
    """
    backbone, _ = build_with_weights(spec)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        head = nn.Linear(spec.dim, outputs)
    return FinetuneNetwork(backbone.requires_grad_(True), head, spec.recipe)


def load_own(module: nn.Module, tensors: Tensors) -> None:
    """Replace all tensors of a module by those that its `state_dict` gave once.

    A mapping of tensors has lost the versions of the layers, without which some networks refuse it (MNASNet)
    and others convert it as if it were old. The module's own are put back.
    """
    state = OrderedDict(tensors)
    state._metadata = module.state_dict()._metadata  # type: ignore[attr-defined]
    with torch.no_grad():
        module.load_state_dict(state, strict=True)


def copied(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Return copies on the CPU, contiguous, which training does not change."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
