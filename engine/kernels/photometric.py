"""Transforms that change values in their places: many views of one image at once, on the image's device.

An image is uint8 [H, W, 3]; views are uint8 [V, H, W, 3]. Each equals torchvision's function of that name on
bytes; where torchvision would compute the same greys, means or smoothed image for every view, they are
computed once.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional

#: Weights of red, green and blue in a grey (ITU-R BT.601, as torchvision writes them).
_GREY = (0.2989, 0.587, 0.114)


def grey(image: torch.Tensor) -> torch.Tensor:
    """uint8 [H, W, 1], rounded down."""
    return (image.float() * torch.tensor(_GREY, device=image.device)).sum(-1, keepdim=True).to(torch.uint8)


def grayscale(image: torch.Tensor) -> torch.Tensor:
    """uint8 [1, H, W, 3], three equal channels."""
    return grey(image).expand(-1, -1, 3)[None]


def brightness(image: torch.Tensor, factors: Sequence[float]) -> torch.Tensor:
    """The image times each factor."""
    return _blend(image, torch.zeros((), device=image.device), factors)


def contrast(image: torch.Tensor, factors: Sequence[float]) -> torch.Tensor:
    """Deviations from the mean grey times each factor."""
    return _blend(image, grey(image).float().mean(), factors)


def saturation(image: torch.Tensor, factors: Sequence[float]) -> torch.Tensor:
    """Deviations from each pixel's grey times each factor."""
    return _blend(image, grey(image).float(), factors)


def sharpness(image: torch.Tensor, factors: Sequence[float]) -> torch.Tensor:
    """Deviations from a smoothed image (3 x 3, centre weight 5 of 13, edges left) times each factor."""
    smooth = image.float()
    if min(image.shape[:2]) > 2:
        kernel = torch.ones(1, 1, 3, 3, device=image.device)
        kernel[0, 0, 1, 1] = 5
        planes = functional.conv2d(image.permute(2, 0, 1)[:, None].float(), kernel / 13)
        smooth[1:-1, 1:-1] = planes[:, 0].permute(1, 2, 0).round()
    return _blend(image, smooth, factors)


def _blend(image: torch.Tensor, other: torch.Tensor, factors: Sequence[float]) -> torch.Tensor:
    """factor * image + (1 - factor) * other, clipped and rounded down."""
    pairs = torch.tensor([(f, 1 - f) for f in factors], dtype=torch.float32, device=image.device)
    share, rest = (pairs[:, i].view(-1, 1, 1, 1) for i in range(2))
    return (share * image.float() + rest * other).clamp_(0, 255).to(torch.uint8)


def hue(image: torch.Tensor, turns: Sequence[float]) -> torch.Tensor:
    """Hues turned by each number of full circles."""
    rgb = image.float() / 255
    value, low = rgb.amax(-1), rgb.amin(-1)
    spread = value - low
    safe = torch.where(spread > 0, spread, 1)
    r, g, b = ((value - rgb[..., i]) / safe for i in range(3))
    sixth = torch.where(value == rgb[..., 0], b - g, torch.where(value == rgb[..., 1], 2 + r - b, 4 + g - r))
    turn = torch.tensor(list(turns), dtype=torch.float32, device=image.device).view(-1, 1, 1)
    start = (torch.fmod(sixth / 6 + 1, 1) + turn) % 1 * 6
    found = []
    for offset in (5.0, 3.0, 1.0):  # red, green, blue as functions of the hue: one trapezium, shifted
        along = (start + offset) % 6
        found.append(value - spread * torch.minimum(along, 4 - along).clamp_(0, 1))
    # As torchvision: nearly 256 equal steps, rounded down.
    return torch.stack(found, dim=-1).mul_(256 - 1e-3).clamp_(0, 255).to(torch.uint8)


def invert(image: torch.Tensor) -> torch.Tensor:
    """255 minus the image."""
    return (255 - image)[None]


def posterize(image: torch.Tensor, bits: Sequence[int]) -> torch.Tensor:
    """The highest bits of each value."""
    masks = torch.tensor([256 - (1 << (8 - int(b))) for b in bits], dtype=torch.uint8, device=image.device)
    return image & masks.view(-1, 1, 1, 1)


def equalize(image: torch.Tensor) -> torch.Tensor:
    """Histogram of each channel made flat, as Pillow's `ImageOps.equalize`."""
    found = torch.empty_like(image)
    for channel in range(3):
        plane = image[..., channel].long()
        counts = torch.zeros(256, dtype=torch.int64, device=image.device)
        counts.scatter_add_(0, plane.reshape(-1), torch.ones_like(plane.reshape(-1)))
        last = int(counts.nonzero()[-1])
        step = int(counts.sum() - counts[last]) // 255
        below = counts.cumsum(0) - counts
        table = (below + step // 2) // step if step else torch.arange(256, device=image.device)
        found[..., channel] = table.clamp(0, 255)[plane].to(torch.uint8)
    return found[None]
