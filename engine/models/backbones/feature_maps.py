"""The last spatial feature map of a backbone: where it is, and how to compute it.

In the study it is `layer4` of a ResNet, and dense block 4 of a DenseNet before the last norm. For the other
families of torchvision it is what they pool; for those of timm and transformers what `forward_features`
gives. Tokens of patches are arranged as a map, without the class token and registers.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from engine.errors import ModelError
from engine.models.backbones import huggingface, modifiers
from engine.models.backbones.names import split

#: Pattern of torchvision's names -> the submodule whose output is the map, or has the tokens.
_SUBMODULES = (
    (r"(wide_)?resnet\d+(_2)?|resnext\d+_\d+x\d+d", "layer4"),
    (r"regnet_[xy]_\w+", "trunk_output"),
    (r"shufflenet_v2_x\d_\d", "conv5"),
    (r"densenet\d+", "features.denseblock4"),
    (r"mnasnet\d_\d+", "layers"),
    (r"googlenet", "inception5b"),
    (r"inception_v3", "Mixed_7c"),
    (r"swin(_v2)?_[tsb]", "permute"),
    (r"maxvit_t", "blocks.3"),
    (r"vit_[blh]_\d+", "encoder"),
    (r"(mobilenet|efficientnet|convnext|vgg|squeezenet)\w+|alexnet", "features"),
)


class _Reached(Exception):
    """Raised by a hook with the output of the submodule, so that nothing after it is computed."""

    def __init__(self, output: torch.Tensor) -> None:
        self.output = output
        super().__init__()


@dataclass(frozen=True, eq=False)
class SpatialMap:
    """The last feature map of one backbone.

    Attributes:
        layer: its name: a submodule, or `forward_features`.
        compute: images [B, 3, S, S] -> the layer's output.
        prefix: tokens before the patches, where the output is tokens.
        channels_last: the output is [B, h, w, C].
    """

    layer: str
    compute: Callable[[torch.Tensor], torch.Tensor]
    prefix: int = 0
    channels_last: bool = False

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the feature map [B, C, h, w].

        Raises:
            ModelError: the layer has no spatial map.
        """
        output = self.compute(images)
        if isinstance(output, torch.Tensor) and output.dim() == 4:
            return output.permute(0, 3, 1, 2) if self.channels_last else output
        if isinstance(output, torch.Tensor) and output.dim() == 3:
            patches = output[:, self.prefix :]
            side = math.isqrt(patches.shape[1])
            if side * side == patches.shape[1]:
                tokens: torch.Tensor = patches.transpose(1, 2)
                return tokens.reshape(*tokens.shape[:2], side, side)
        shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise no_map(f"{self.layer} gives {shape}")


def no_map(reason: str) -> ModelError:
    """Return the error for a model without a spatial feature map."""
    return ModelError(
        f"The model has no spatial feature map ({reason})",
        "An image is reconstructed from a map [channels, rows, columns], or from a square of patch tokens",
        "choose another model, e.g. a ResNet, a DenseNet or a ViT",
    )


def spatial_map(architecture: str, module: nn.Module) -> SpatialMap:
    """Find the last feature map of a backbone.

    Args:
        architecture: canonical name, perhaps with `+MODIFIER`.
        module: as `engine.models.backbones.architectures.build` returns it.

    Raises:
        ModelError: there is none.
    """
    namespace, name = split(architecture)
    if namespace == "torchvision":
        return _of_torchvision(name, module)
    while isinstance(module, modifiers.Tokens):
        module = module.body
    net: Any = module
    if not hasattr(net, "forward_features"):
        raise no_map(f"{architecture} has no forward_features")
    prefix = int(getattr(net, "num_prefix_tokens", 0))
    last = not isinstance(net, huggingface.Backbone) and "NHWC" in str(getattr(net, "output_fmt", ""))
    return SpatialMap("forward_features", net.forward_features, prefix, last)


def _of_torchvision(name: str, module: nn.Module) -> SpatialMap:
    layer = next((layer for pattern, layer in _SUBMODULES if re.fullmatch(pattern, name)), None)
    if layer is None:
        raise no_map(f"torchvision/{name} is of no family whose map is known here")

    def stop(part: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        raise _Reached(output)

    module.get_submodule(layer).register_forward_hook(stop)

    def compute(images: torch.Tensor) -> torch.Tensor:
        try:
            module(images)
        except _Reached as reached:
            return reached.output
        raise no_map(f"{layer} of {name} is not reached")

    return SpatialMap(layer, compute, prefix=1 if layer == "encoder" else 0)
