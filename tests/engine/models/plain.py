"""Oracles for the backbones: plain torchvision, hooks, float64."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

Shape = Callable[[torch.Tensor], torch.Tensor]


def settle(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every BatchNorm statistics and factors away from their start, as training does; eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.2, generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)
            if part.affine:
                part.weight.data.uniform_(0.5, 1.5, generator=generator)
                part.bias.data.normal_(0, 0.2, generator=generator)
    return module.eval()


def trained(module: nn.Module, side: int) -> nn.Module:
    """As `settle`, with the statistics of real activations, so that signals get through deep networks."""
    settle(module)
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    if not norms:
        return module.eval()
    x = pictures(8, side, seed=9).permute(0, 3, 1, 2) / 64 - 2
    with torch.no_grad():
        module.train()(x)
    for norm in norms:
        norm.momentum = 0.1
    return module.eval()


def saved(module: nn.Module, folder: Path) -> Path:
    path = folder / "weights.pth"
    torch.save(module.state_dict(), path)
    return path


def pictures(count: int, side: int, seed: int = 0) -> torch.Tensor:
    """Smooth random uint8 pictures [count, side, side, 3]; noise alone would cancel out in every pooling."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 7, 7, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)
    return (smooth * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def hooked(module: nn.Module, layer: str, x: torch.Tensor, shape: Shape) -> torch.Tensor:
    """What `layer` of an untouched classifier puts out for x, made into a feature by `shape`."""
    caught: list[torch.Tensor] = []
    handle = module.get_submodule(layer).register_forward_hook(lambda m, args, out: caught.append(out))
    with torch.inference_mode():
        module(x)
    handle.remove()
    return shape(caught[-1])


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Smallest cosine over rows, in float64."""
    return float(nn.functional.cosine_similarity(a.double(), b.double()).min())
