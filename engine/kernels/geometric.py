"""Geometric transforms: many views of one image at once, on the image's device.

An image is uint8 [H, W, 3]; views are uint8 [V, H, W, 3], as encoders take them. Pixels of affine views are
looked up in the image: nearest neighbour, black outside, like torchvision's `rotate` and `affine` by default.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional

from engine.errors import BadImage
from engine.kernels.view_parameters import stacked_on, values_on

#: Taps of the blur that smooths a random displacement field.
_FIELD_TAPS = 17
#: Deformation fields of up to this many pixels are cached: all images of a run use the same ones.
_KEPT_PIXELS = 1 << 17


@dataclass(frozen=True)
class Affine:
    """One affine view about the image's centre: shear, scale, rotate, then shift.

    Attributes:
        angle: clockwise, in degrees.
        shift: right and down, in pixels.
        shear: along x and y, in degrees.
    """

    angle: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    shear: tuple[float, float] = (0.0, 0.0)

    def inverse(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Return the map from a view's pixel (x, y, 1) to the image's x and y, relative to the centres.

        The forward map is R(angle) scale SHy SHx with SHx = [1, -tan sx; 0, 1] and SHy = [1, 0; -tan sy, 1].
        """
        angle, sx, sy = (math.radians(v) for v in (self.angle, *self.shear))
        rotate = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        along_y = np.array([[1.0, 0.0], [-math.tan(sy), 1.0]])
        along_x = np.array([[1.0, -math.tan(sx)], [0.0, 1.0]])
        inverse = np.linalg.inv(self.scale * rotate @ along_y @ along_x)
        (a, b), (c, d) = inverse.tolist()
        x, y = self.shift
        return (a, b, -a * x - b * y), (c, d, -c * x - d * y)


def affine(image: torch.Tensor, views: Sequence[Affine]) -> torch.Tensor:
    """Return the affine views of an image, uint8 [V, H, W, 3]; nearest pixels, black outside."""
    height, width = image.shape[:2]
    maps = values_on(image.device, [view.inverse() for view in views])
    x, y = (torch.arange(n, dtype=torch.float32, device=image.device) - (n - 1) / 2 for n in (width, height))
    column, row = (
        maps[:, i, 0, None, None] * x + (maps[:, i, 1, None] * y + maps[:, i, 2, None])[:, :, None]
        for i in (0, 1)
    )
    column, row = (column + (width - 1) / 2).round_(), (row + (height - 1) / 2).round_()
    outside = (column < 0) | (column > width - 1) | (row < 0) | (row > height - 1)
    index = row.mul_(width).add_(column).masked_fill_(outside, height * width).long()
    flat = torch.cat([image.reshape(-1, 3), image.new_zeros(1, 3)])
    return flat.index_select(0, index.view(-1)).view(len(views), height, width, 3)


def crops(image: torch.Tensor, boxes: Sequence[tuple[float, float, float, float]], side: int) -> torch.Tensor:
    """Return boxes (top, left, height, width) in pixels, resized to squares, uint8 [V, side, side, 3].

    Corners are rounded to whole pixels; pixels outside the image are black.
    """
    corners = [(round(t), round(x), round(t + h), round(x + w)) for t, x, h, w in boxes]
    below = max(0, *(bottom - image.shape[0] for _, _, bottom, _ in corners))
    right = max(0, *(right - image.shape[1] for *_, right in corners))
    padded = functional.pad(image, (0, 0, 0, right, 0, below))
    sizes: dict[tuple[int, int], list[int]] = {}
    for i, (top, left, bottom, end) in enumerate(corners):
        sizes.setdefault((bottom - top, end - left), []).append(i)
    made = []
    for same_size in sizes.values():
        cut = [padded[corners[i][0] : corners[i][2], corners[i][1] : corners[i][3]] for i in same_size]
        made.append(resize(torch.stack(cut), side, side))
    order = np.argsort([i for same_size in sizes.values() for i in same_size])
    return torch.cat(made).index_select(0, values_on(image.device, order.tolist(), torch.int64))


def resize(
    views: torch.Tensor, height: int, width: int, crop: tuple[int, int, int] | None = None
) -> torch.Tensor:
    """Resize uint8 [V, H, W, 3], bilinear and antialiased; then take the crop (top, left, side), if given."""
    planes = views.permute(0, 3, 1, 2).float()
    if planes.shape[2:] != (height, width):
        planes = functional.interpolate(
            planes, size=(height, width), mode="bilinear", antialias=True, align_corners=False
        )
    if crop is not None:
        top, left, side = crop
        planes = planes[:, :, top : top + side, left : left + side]
    return to_bytes(planes)


def flip(image: torch.Tensor, *, vertical: bool) -> torch.Tensor:
    """Return the image mirrored, upside down or left to right, uint8 [1, H, W, 3]."""
    return image.flip(0 if vertical else 1)[None]


def deform(image: torch.Tensor, sigmas: Sequence[float], seeds: Sequence[int], reach: float) -> torch.Tensor:
    """Deform the image by a random affine map and a random smooth field for each view, uint8 [V, H, W, 3].

    Follows albumentations 1.1's `ElasticTransform(sigma, approximate=True)`, which the study calls: three
    points around the centre, a third of the short side away, move by up to `reach` pixels; the field is noise
    from -1 to 1 pixel smoothed by a Gaussian of 17 taps, which leaves a few hundredths of a pixel. The
    visible effect is therefore almost entirely the affine map, whatever sigma. Here both are applied in one
    lookup, with mirrored edges.

    Args:
        sigmas: of the blur, in pixels, one for each view.
        seeds: of each view's random map and noise.
        reach: largest displacement of the three points, in pixels.

    Raises:
        BadImage: the image is smaller than the blur.
    """
    height, width = image.shape[:2]
    _needs(image, _FIELD_TAPS // 2 + 1, "deform")
    positions = stacked_on(
        image.device,
        [_field(height, width, sigma, seed, reach) for sigma, seed in zip(sigmas, seeds, strict=True)],
    )
    # grid_sample takes -1 to 1 between the centres of the outer pixels, and reflects about these centres.
    grid = positions * 2 / values_on(image.device, [max(width - 1, 1), max(height - 1, 1)]) - 1
    planes = image.permute(2, 0, 1).float().expand(len(grid), -1, -1, -1)
    return to_bytes(
        functional.grid_sample(planes, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
    )


def _field(height: int, width: int, sigma: float, seed: int, reach: float) -> torch.Tensor:
    """Return the image position (x, y) of each pixel of a view, float32 [H, W, 2]; cached if small."""
    make = _kept_field if height * width <= _KEPT_PIXELS else _kept_field.__wrapped__
    return make(height, width, sigma, seed, reach)


@lru_cache(maxsize=256)
def _kept_field(height: int, width: int, sigma: float, seed: int, reach: float) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    mapped = _random_affine(height, width, reach, draw)
    noise = torch.rand(2, height, width, generator=draw) * 2 - 1
    noise = _blur(noise[:, None], _gaussian(_FIELD_TAPS, torch.tensor([sigma])))[:, 0]
    return mapped + noise.permute(1, 2, 0)


def _random_affine(height: int, width: int, reach: float, draw: torch.Generator) -> torch.Tensor:
    """Return the map that moves three points around the centre by up to `reach` pixels, float32 [H, W, 2]."""
    centre, arm = np.array([width // 2, height // 2]), min(height, width) // 3
    points = centre + arm * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = points + ((torch.rand(3, 2, generator=draw) * 2 - 1) * reach).double().numpy()
    ones = np.ones((3, 1))
    to_image = np.linalg.solve(np.hstack([moved, ones]), points)  # (x', y', 1) of the view -> (x, y)
    y, x = np.mgrid[:height, :width]
    positions = np.stack([x, y, np.ones_like(x)], axis=-1) @ to_image
    return torch.from_numpy(positions.astype(np.float32))


def gaussian_blur(image: torch.Tensor, sigmas: Sequence[float], taps: int) -> torch.Tensor:
    """Blur the image with each standard deviation (pixels), `taps` wide, edges mirrored, uint8 [V, H, W, 3].

    Raises:
        BadImage: the image has at most taps / 2 pixels in one direction.
    """
    _needs(image, taps // 2 + 1, "blur")
    kernels = _gaussian(taps, values_on(image.device, sigmas))
    planes = image.permute(2, 0, 1)[:, None].float()
    return to_bytes(_blur(planes, kernels).transpose(0, 1))


def _gaussian(taps: int, sigmas: torch.Tensor) -> torch.Tensor:
    """Return Gaussian kernels that sum to one, [V, taps]."""
    offset = torch.arange(taps, dtype=torch.float32, device=sigmas.device) - (taps - 1) / 2
    weights = torch.exp(-0.5 * (offset / sigmas[:, None]) ** 2)
    return weights / weights.sum(dim=1, keepdim=True)


def _blur(planes: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Blur planes [C, 1, H, W] along x and y with each kernel, [C, V, H, W]."""
    count, taps = kernels.shape
    half = taps // 2
    padded = functional.pad(planes, (half, half, half, half), mode="reflect")
    along_x = functional.conv2d(padded, kernels[:, None, None, :])
    return functional.conv2d(along_x, kernels[:, None, :, None], groups=count)


def _needs(image: torch.Tensor, side: int, what: str) -> None:
    if min(image.shape[:2]) < side:
        raise BadImage(
            "too_small", f"{image.shape[1]} x {image.shape[0]} pixels; {what} needs {side} each way"
        )


def to_bytes(planes: torch.Tensor) -> torch.Tensor:
    """Round float planes [V, 3, H, W], half to even, to uint8 [V, H, W, 3]."""
    return planes.round().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
