"""Trunks of LPIPS with drawn weights in small files: without a network there are no ImageNet weights.

Distances by them test the arithmetic; they are not LPIPS.
"""

import functools
import warnings
from pathlib import Path

import torch
from torch import nn
from torchvision import models

_BUILDERS = {"alex": models.alexnet, "squeeze": models.squeezenet1_1, "vgg": models.vgg16}


@functools.cache
def drawn(net: str) -> dict[str, torch.Tensor]:
    """The convolutions of torchvision's network under its own names, drawn by He's rule from one seed."""
    with torch.device("meta"):  # the classifiers, which have most of the weights, are never made
        shapes = {n: t.shape for n, t in _BUILDERS[net](weights=None).state_dict().items()}
    generator = torch.Generator().manual_seed(len(net))
    tensors = {name: torch.zeros(shape) for name, shape in shapes.items() if name.startswith("features.")}
    for tensor in tensors.values():
        if tensor.ndim == 4:
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
        else:
            tensor.normal_(0, 0.1, generator=generator)
    return tensors


def saved(net: str, folder: Path) -> Path:
    path = folder / f"{net}.pth"
    torch.save(drawn(net), path)
    return path


def packages_own(net: str) -> nn.Module:
    """The package's LPIPS as its users build it, with its heads, but with the drawn trunk."""
    import lpips

    with warnings.catch_warnings(action="ignore"):  # torchvision calls the package's arguments outdated
        module: nn.Module = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    module.net.load_state_dict(
        {name: drawn(net)["features." + name.split(".", 1)[1]] for name in module.net.state_dict()}
    )
    return module.eval()
