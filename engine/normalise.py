"""Normalisation, the last step of a recipe: from bytes to the float32 values that a backbone expects."""

import functools

import numpy as np
import torch

from engine.recipes import Recipe

#: Bins of the histogram normalisation, as many as a byte has values.
_BINS = 256


def normalise(pixels: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Normalise a batch by the method `recipe.normalise`.

    Args:
        pixels: uint8 [B, H, W, 3], RGB.
        recipe: `mean_sd` gives (p / 255 - mean) / sd, `none` p / 255; for `histogram` see
            `_histogram_tables`.

    Returns:
        float32 [B, 3, H, W] in memory format channels_last, on the device of `pixels`. Images are independent
        of one another.
    """
    equalise = recipe.normalise == "histogram"
    values = _equalised(pixels) if equalise else pixels.to(torch.float32).div_(255)
    if recipe.normalise == "mean_sd":
        # Subtract, then divide, for the same bits as torchvision. A line of pixels at a time, because
        # broadcasting over three values is five times slower.
        width = values.shape[2]
        lines = values.view(len(values), values.shape[1], 3 * width)
        mean, sd = (_line(tuple(channels), width, values.device) for channels in (recipe.mean, recipe.sd))
        lines.sub_(mean).div_(sd)
    # channels_last means [B, H, W, 3] in memory.
    return values.permute(0, 3, 1, 2)


@functools.lru_cache(maxsize=64)
def _line(channels: tuple[float, ...], width: int, device: torch.device) -> torch.Tensor:
    """Return the three values repeated, float32 [3 * width]; cached to be uploaded once, not for each batch.

    The upload from pageable host memory is complete when this returns, so every stream may use the result.
    """
    with torch.inference_mode(False):
        return torch.tensor(channels, dtype=torch.float32).repeat(width).to(device)


def _equalised(pixels: torch.Tensor) -> torch.Tensor:
    flat = pixels.flatten(1).to(torch.int64)
    counts = torch.zeros(len(pixels), _BINS, dtype=torch.int64, device=pixels.device)
    counts.scatter_add_(1, flat, counts.new_ones(1, 1).expand_as(flat))
    return _histogram_tables(counts).gather(1, flat).reshape(pixels.shape)


def _histogram_tables(counts: torch.Tensor) -> torch.Tensor:
    """Return the normalised value of each byte, for each image.

    The cumulative histogram over 256 equal bins between the smallest and largest value of the image (all
    channels together), scaled to 0-255 and interpolated linearly between the left edges of the bins. A byte v
    lies (v - min) * 256 / (max - min) bins from the left; in integers, rounding moves no value over an edge.

    Args:
        counts: int64 [B, 256], number of occurrences of each byte.

    Returns:
        float32 [B, 256].

    Source: MIMIC-CheXpert's `HistogramNormalize`, which the study uses for these weights.
    """
    device = counts.device
    byte = torch.arange(_BINS, device=device)
    present = counts > 0
    low = torch.where(present, byte, _BINS - 1).amin(1, keepdim=True)
    high = torch.where(present, byte, 0).amax(1, keepdim=True)
    # All values of a constant image fall into the first bin, whose cumulative count is then 255.
    span = (high - low).clamp_(min=1)
    position = ((byte - low) * _BINS).clamp_(min=0)
    bins = (position // span).clamp_(max=_BINS - 1)
    cumulative = torch.zeros_like(counts).scatter_add_(1, bins, counts).cumsum_(1).to(torch.float64)
    cumulative = cumulative / cumulative[:, -1:] * 255
    fraction = (position - bins * span).to(torch.float64) / span
    right = (bins + 1).clamp(max=_BINS - 1)
    left = cumulative.gather(1, bins)
    return (left + (cumulative.gather(1, right) - left) * fraction).to(torch.float32)


def normalise_numpy(pixels: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Normalise in float64 with plain numpy: the oracle of `normalise`.

    Args:
        pixels: uint8 [B, H, W, 3].
        recipe: as for `normalise`.

    Returns:
        float64 [B, 3, H, W].
    """
    values = pixels.astype(np.float64)
    if recipe.normalise == "histogram":
        values = np.stack([histogram_numpy(image) for image in values])
    else:
        values = values / 255
    if recipe.normalise == "mean_sd":
        values = (values - recipe.mean) / recipe.sd
    return values.transpose(0, 3, 1, 2)


def histogram_numpy(values: np.ndarray) -> np.ndarray:
    """Normalise one image of any shape and scale by its histogram; float64, in (0, 255]."""
    counts, edges = np.histogram(values, _BINS)
    cumulative = counts.cumsum() / values.size * 255
    return np.asarray(np.interp(values, edges[:-1], cumulative))
