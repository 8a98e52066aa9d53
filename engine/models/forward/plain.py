"""The plain model: what `encoder` computes, as most would write it in torch, sharing as little as can be.

A fault of the encoder must show against it, so nothing of it is used: no rewritten graph, no packed or folded
layer, no channels_last, no tiles, no compiling, no autocast, and its pixels are normalised by numpy in
float64. It shares the architecture and the weights file.
"""

import numpy as np
import torch

from engine.models.catalog.lookup import ModelSpec
from engine.models.forward import windowed_forward
from engine.normalise import normalise_numpy
from engine.runtime import exact_flags


class PlainModel:
    """An eager float32 forward pass in eval mode, without TF32.

    Args:
        spec: weights, architecture and recipe.
        device: `cpu` or `cuda:N`.

    Raises:
        ModelError, WeightsError: as `encoder.load`.
    """

    def __init__(self, spec: ModelSpec, device: str) -> None:
        self._recipe, self._device = spec.recipe, device
        self._net = windowed_forward.load(spec).requires_grad_(False).to(device)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """float32 [B, d] of uint8 [B, S, S, 3], in one forward pass of B images."""
        x = torch.from_numpy(normalise_numpy(pixels, self._recipe))
        x = x.to(torch.float32).contiguous().to(self._device)
        with exact_flags(), torch.inference_mode():
            features: np.ndarray = self._net(x).float().cpu().numpy()
        return features

    @staticmethod
    def describe() -> dict[str, object]:
        """How it computes: JSON types."""
        return {"model": "eager, unfused", "precision": "fp32", "tf32": False, "decoder": "reference"}
