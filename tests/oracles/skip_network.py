"""The study's generator in plain torch, one network: encoder and decoder with skips, as published."""

from collections.abc import Sequence

import torch
from torch import nn


class Side(nn.Module):
    """Two branches of one input, joined along channels."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.first(x), self.second(x)], dim=1)


def _block(inputs: int, outputs: int, kernel: int, *, pool: bool = False) -> list[nn.Module]:
    convolution: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)]
    pooling: list[nn.Module] = [nn.AvgPool2d(2)] if pool else []
    return [*convolution, *pooling, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)]


def skip_network(
    channels: Sequence[int] = (16, 32, 64, 128, 128, 128),
    kernels: Sequence[int] = (7, 7, 5, 5, 3, 3),
    skip: int = 4,
    depth: int = 32,
) -> nn.Sequential:
    def scale(position: int) -> list[nn.Module]:
        inputs = channels[position - 1] if position else depth
        outputs, kernel = channels[position], kernels[position]
        last = position == len(channels) - 1
        below = outputs if last else channels[position + 1]
        deeper = [
            *_block(inputs, outputs, kernel, pool=True),
            *_block(outputs, outputs, kernel),
            *([] if last else scale(position + 1)),
            nn.Upsample(scale_factor=2, mode="nearest"),
        ]
        return [
            Side(nn.Sequential(*_block(inputs, skip, 1)), nn.Sequential(*deeper)),
            nn.BatchNorm2d(skip + below),
            *_block(skip + below, outputs, kernel),
            *_block(outputs, outputs, 1),
        ]

    return nn.Sequential(*scale(0), nn.Conv2d(channels[0], 3, 1))
