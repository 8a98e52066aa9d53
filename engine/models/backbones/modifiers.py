"""What may follow an architecture's name, `torchvision/resnet50+same`: another padding, input or pooling.

The modified name is part of the feature's key; the tensors and their names stay the architecture's own.

`same`: TensorFlow's SAME padding in every strided convolution and max-pool, as BYOL's network computes.
`samepool`: the same in max-pools alone, as SimCLR's network computes (it pads its convolutions like torch).
`grey`: the first convolution takes one channel, the mean of the three.
`cls`, `mean`: of a transformer's tokens after the last norm, the class token, or the mean over patch tokens.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from engine.errors import ModelError

#: Modifier -> the layer that the feature then is; the others leave it as it is.
LAYERS: Mapping[str, str] = {"cls": "cls", "mean": "mean"}


def same_padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels (before, after) that SAME adds to one side, the odd one after.

    Output ceil(length / stride); source: tensorflow/core/framework/common_shape_fns.cc.
    """
    total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2


def _padded(x: torch.Tensor, kernel: Any, stride: Any, value: float) -> torch.Tensor:
    top, bottom = same_padding(x.shape[-2], kernel[0], stride[0])
    left, right = same_padding(x.shape[-1], kernel[1], stride[1])
    return functional.pad(x, (left, right, top, bottom), value=value)


class SameConv2d(nn.Conv2d):
    """A convolution that pads as TensorFlow's SAME does, whatever its `padding` says."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        x = _padded(input, self.kernel_size, self.stride, 0.0)
        return functional.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class SameMaxPool2d(nn.MaxPool2d):
    """A max-pool that pads (with minus infinity) as TensorFlow's SAME does."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        kernel, stride = (self.kernel_size,) * 2, (self.stride,) * 2
        x = _padded(input, kernel, stride, float("-inf"))
        return functional.max_pool2d(x, self.kernel_size, self.stride)


class GreyConv2d(nn.Conv2d):
    """A convolution of one channel, fed with the mean of three."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input.mean(1, keepdim=True))


class Tokens(nn.Module):
    """A transformer whose feature is its class token or the mean of its patch tokens.

    Args:
        body: has `forward_features`: [B, 3, S, S] -> [B, prefix + patches, d], after the last norm.
        pooling: `cls` or `mean`.
        prefix: tokens before the patches: the class token first, then registers.
    """

    def __init__(self, body: nn.Module, pooling: str, prefix: int) -> None:
        super().__init__()
        self.body, self.pooling, self.prefix = body, pooling, prefix

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens: torch.Tensor = self.body.forward_features(x)  # type: ignore[operator]
        return tokens[:, 0] if self.pooling == "cls" else tokens[:, self.prefix :].mean(1)


def _retype(module: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> nn.Module:
    """Make every strided `old` a `new`, which has the same tensors and settings and another forward."""
    for part in module.modules():
        if type(part) is old and part.stride not in (1, (1, 1)):
            part.__class__ = new
    return module


def _same_pools(module: nn.Module) -> nn.Module:
    return _retype(module, nn.MaxPool2d, SameMaxPool2d)


def _same(module: nn.Module) -> nn.Module:
    return _retype(_same_pools(module), nn.Conv2d, SameConv2d)


def _grey(module: nn.Module) -> nn.Module:
    name, first = next((n, m) for n, m in module.named_modules() if isinstance(m, nn.Conv2d))
    shape = (first.out_channels, first.kernel_size, first.stride, first.padding, first.dilation)
    module.set_submodule(name, GreyConv2d(1, *shape, bias=first.bias is not None))  # type: ignore[arg-type]
    return module


def _tokens(pooling: str) -> Callable[[nn.Module], nn.Module]:
    def pooled(module: nn.Module) -> nn.Module:
        prefix = getattr(module, "num_prefix_tokens", None)
        if prefix is None or not hasattr(module, "forward_features"):
            raise ModelError(
                f"{type(module).__name__} with +{pooling}",
                "Only transformers of timm and transformers have tokens to pool",
                "leave the modifier out",
            )
        if pooling == "cls" and (prefix < 1 or getattr(module, "cls_token", module) is None):
            raise ModelError(f"{type(module).__name__} with +cls", "It has no class token", "use +mean")
        return Tokens(module, pooling, int(prefix))

    return pooled


_CHANGES: Mapping[str, Callable[[nn.Module], nn.Module]] = {
    "same": _same,
    "samepool": _same_pools,
    "grey": _grey,
    "cls": _tokens("cls"),
    "mean": _tokens("mean"),
}


def apply(module: nn.Module, modifier: str) -> nn.Module:
    """The module with the modifier's change; it may be changed in place.

    Raises:
        ModelError: an unknown modifier, or one that this module cannot take.
    """
    if modifier not in _CHANGES:
        raise ModelError(
            f"Architecture modifier +{modifier}", f"It is one of +{', +'.join(_CHANGES)}", "name one of these"
        )
    return _CHANGES[modifier](module)
