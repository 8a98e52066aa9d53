"""The loop that researchers usually write: DataLoader, Pillow, eager model, append, np.save."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from engine.runtime import plain_flags

if TYPE_CHECKING:
    from engine.recipes import Recipe

_MODES = {
    "bicubic": transforms.InterpolationMode.BICUBIC,
    "bilinear": transforms.InterpolationMode.BILINEAR,
}


class Pictures(Dataset[torch.Tensor]):
    """Dataset of files through Pillow and torchvision's transforms: float32 [3, S, S], normalised."""

    def __init__(self, paths: Sequence[Path], recipe: "Recipe") -> None:
        self.paths = list(paths)
        size = recipe.size if recipe.resize == "short" else [recipe.size, recipe.size]
        self.transform = transforms.Compose(
            [
                transforms.Resize(size, _MODES[recipe.interpolation]),
                transforms.CenterCrop(recipe.side),
                transforms.ToTensor(),
                transforms.Normalize(recipe.mean, recipe.sd),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> torch.Tensor:
        tensor: torch.Tensor = self.transform(Image.open(self.paths[i]).convert("RGB"))
        return tensor


def loader(
    paths: Sequence[Path], recipe: "Recipe", *, batch_size: int, workers: int, pin: bool
) -> "DataLoader[Any]":
    """Return a loader of batches float32 [B, 3, S, S], in order."""
    return DataLoader(
        Pictures(paths, recipe), batch_size=batch_size, num_workers=workers, shuffle=False, pin_memory=pin
    )


def untrained(name: str, seed: int = 0) -> nn.Module:
    """Return a torchvision network with its default initialisation and without head, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = torchvision.models.get_model(name, weights=None)
    setattr(model, "fc" if hasattr(model, "fc") else "classifier", nn.Identity())
    return model.eval()


def embed_with_loop(
    paths: Sequence[Path],
    recipe: "Recipe",
    model: nn.Module,
    out: Path,
    *,
    device: str = "cpu",
    batch_size: int = 32,
    workers: int = 2,
) -> None:
    """Embed files and save float32 [N, d] to `out`, with torch's defaults."""
    on_cuda = device.startswith("cuda")
    model = model.to(device)
    features = []
    with plain_flags(), torch.no_grad():
        for batch in loader(paths, recipe, batch_size=batch_size, workers=workers, pin=on_cuda):
            features.append(model(batch.to(device, non_blocking=on_cuda)).cpu().numpy())  # noqa: PERF401
    np.save(out, np.concatenate(features))
