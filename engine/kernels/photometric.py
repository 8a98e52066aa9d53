"""Photometric transforms: many views of one image at once, on the image's device.

An image is uint8 [H, W, 3]; views are uint8 [V, H, W, 3]. Every function gives the same bytes as
torchvision's function of that name; grey levels, means and smoothed images, which torchvision computes again
for every view, are computed once.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional

from engine.kernels.view_parameters import values_on

#: Weights of red, green and blue in a grey level (ITU-R BT.601, rounded as in torchvision).
_GREY = (0.2989, 0.587, 0.114)


def grey(image: torch.Tensor) -> torch.Tensor:
    """Return the grey levels, rounded down, uint8 [H, W, 1]."""
    return (image.float() * values_on(image.device, _GREY)).sum(-1, keepdim=True).to(torch.uint8)


def grayscale(image: torch.Tensor) -> torch.Tensor:
    """Return the grey image in three equal channels, uint8 [1, H, W, 3]."""
    return grey(image).expand(-1, -1, 3)[None]


def brightness(image: torch.Tensor, factors: Sequence[float]) -> torch.Tensor:
    """Multiply the image by each factor."""
    return _blend(image, torch.zeros((), device=image.device), factors)


def contrast(image: torch.Tensor, factors: Sequence[float]) -> torch.Tensor:
    """Multiply the deviations from the mean grey level by each factor."""
    return _blend(image, grey(image).float().mean(), factors)


def saturation(image: torch.Tensor, factors: Sequence[float]) -> torch.Tensor:
    """Multiply the deviations from each pixel's grey level by each factor."""
    return _blend(image, grey(image).float(), factors)


def sharpness(image: torch.Tensor, factors: Sequence[float]) -> torch.Tensor:
    """Multiply the deviations from a smoothed image by each factor.

    Smoothing is over 3 x 3 pixels with a centre weight of 5 / 13; edge pixels stay as they are.
    """
    smooth = image.float()
    if min(image.shape[:2]) > 2:
        kernel = torch.ones(1, 1, 3, 3, device=image.device)
        kernel[0, 0, 1, 1] = 5
        planes = functional.conv2d(image.permute(2, 0, 1)[:, None].float(), kernel / 13)
        smooth[1:-1, 1:-1] = planes[:, 0].permute(1, 2, 0).round()
    return _blend(image, smooth, factors)


def _blend(image: torch.Tensor, other: torch.Tensor, factors: Sequence[float]) -> torch.Tensor:
    """Return factor * image + (1 - factor) * other for each factor, clipped and rounded down."""
    pairs = values_on(image.device, [(f, 1 - f) for f in factors])
    share, rest = (pairs[:, i].view(-1, 1, 1, 1) for i in range(2))
    return (share * image.float() + rest * other).clamp_(0, 255).to(torch.uint8)


def hue(image: torch.Tensor, turns: Sequence[float]) -> torch.Tensor:
    """Rotate hues by each number of full circles."""
    rgb = image.float() / 255
    value, low = rgb.amax(-1), rgb.amin(-1)
    spread = value - low
    safe = torch.where(spread > 0, spread, 1)
    r, g, b = ((value - rgb[..., i]) / safe for i in range(3))
    sixth = torch.where(value == rgb[..., 0], b - g, torch.where(value == rgb[..., 1], 2 + r - b, 4 + g - r))
    turn = values_on(image.device, turns).view(-1, 1, 1)
    start = (torch.fmod(sixth / 6 + 1, 1) + turn) % 1 * 6
    channels = []
    for offset in (5.0, 3.0, 1.0):  # red, green and blue are the same trapezium of the hue, shifted
        along = (start + offset) % 6
        channels.append(value - spread * torch.minimum(along, 4 - along).clamp_(0, 1))
    # Nearly 256 equal steps, rounded down, as in torchvision.
    return torch.stack(channels, dim=-1).mul_(256 - 1e-3).clamp_(0, 255).to(torch.uint8)


def invert(image: torch.Tensor) -> torch.Tensor:
    """Return 255 minus the image."""
    return (255 - image)[None]


def posterize(image: torch.Tensor, bits: Sequence[int]) -> torch.Tensor:
    """Keep the highest bits of each value."""
    masks = values_on(image.device, [256 - (1 << (8 - int(b))) for b in bits], torch.uint8)
    return image & masks.view(-1, 1, 1, 1)


def equalize(image: torch.Tensor) -> torch.Tensor:
    """Equalise the histogram of each channel, as Pillow's `ImageOps.equalize` does."""
    result = torch.empty_like(image)
    level = torch.arange(256, device=image.device)
    for channel in range(3):
        plane = image[..., channel].long()
        counts = torch.zeros(256, dtype=torch.int64, device=image.device)
        counts.scatter_add_(0, plane.reshape(-1), torch.ones_like(plane.reshape(-1)))
        # Not read by the host, which would wait: a flat channel has a step of 0.
        below = counts.cumsum(0) - counts
        step = below.where(counts > 0, 0).amax() // 255
        table = torch.where(step > 0, (below + step // 2) // step.clamp(min=1), level)
        result[..., channel] = table.clamp(0, 255)[plane].to(torch.uint8)
    return result[None]
