"""Small generators, a small frozen backbone, and the same parameters in the plain network."""

import torch
from torch import nn

from engine.evals.reconstruction.generator import Architecture, Generator, Scale
from tests.oracles.skip_network import Side

#: Three scales, with kernels that are merged and one that is not.
SMALL = Architecture(channels=(4, 6, 8), kernels=(7, 5, 3), skip=2, depth=3)


def backbone() -> nn.Module:
    """A frozen network from [B, 3, S, S] to a map."""
    torch.manual_seed(5)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2))
    return net.eval().requires_grad_(False)


def fill(plain: nn.Sequential, generator: Generator, network: int) -> None:
    """Give the plain network the parameters of one network of a generator."""
    with torch.no_grad():
        _fill_scale(list(plain)[:-1], generator.scales, network)
        _fill_convolution(plain[-1], generator.last, network)


def _fill_scale(parts: list[nn.Module], scale: Scale, network: int) -> None:
    side, norm, *up = parts
    assert isinstance(side, Side)
    _fill_block(list(side.first), scale.skip, network)
    down = list(side.second)
    _fill_block(down[:4], scale.down[0], network)
    _fill_block(down[4:7], scale.down[1], network)
    if isinstance(scale.deeper, Scale):
        _fill_scale(down[7:-1], scale.deeper, network)
    for name in ("weight", "bias"):
        both = [getattr(part, name)[network] for part in (scale.skip_norm, scale.deeper_norm)]
        getattr(norm, name).copy_(torch.cat(both))
    _fill_convolution(up[0], scale.joined, network)
    _fill_convolution(up[1], scale.joined_norm, network)
    _fill_block(up[3:], scale.up, network)


def _fill_block(parts: list[nn.Module], block: nn.Module, network: int) -> None:
    _fill_convolution(parts[0], block.convolution, network)
    _fill_convolution(parts[-2], block.norm, network)


def _fill_convolution(part: nn.Module, own: nn.Module, network: int) -> None:
    for name in ("weight", "bias"):
        theirs, ours = getattr(part, name), getattr(own, name)[network]
        assert theirs.shape == ours.shape
        theirs.copy_(ours)
