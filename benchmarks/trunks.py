"""Trunks of LPIPS with drawn weights, in files: a machine without a network has no ImageNet weights.

Distances by them show that the arithmetic is right, and how fast it is. They are not LPIPS.
"""

from pathlib import Path

import torch
from torchvision import models

_BUILDERS = {"alex": models.alexnet, "squeeze": models.squeezenet1_1, "vgg": models.vgg16}


def drawn_trunk(net: str) -> dict[str, torch.Tensor]:
    """Draw the convolutions of a net's trunk by He's rule from one seed, under torchvision's names.

    Args:
        net: `alex`, `squeeze` or `vgg`.
    """
    with torch.device("meta"):  # the classifiers, which have most of the weights, are never made
        shapes = {name: tensor.shape for name, tensor in _BUILDERS[net](weights=None).state_dict().items()}
    generator = torch.Generator().manual_seed(len(net))
    tensors = {name: torch.zeros(shape) for name, shape in shapes.items() if name.startswith("features.")}
    for tensor in tensors.values():
        if tensor.ndim == 4:
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
        else:
            tensor.normal_(0, 0.1, generator=generator)
    return tensors


def save_trunk(net: str, folder: Path) -> Path:
    """Write a drawn trunk into a folder, unless it is there; return the file."""
    path = folder / f"trunk-{net}.pth"
    if not path.exists():
        torch.save(drawn_trunk(net), path)
    return path
