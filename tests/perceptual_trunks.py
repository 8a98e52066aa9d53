"""Trunks of LPIPS with drawn weights, and the package's own module with them."""

import functools
import warnings
from pathlib import Path

import torch
from torch import nn

from benchmarks.trunks import drawn_trunk


@functools.cache
def drawn(net: str) -> dict[str, torch.Tensor]:
    return drawn_trunk(net)


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
