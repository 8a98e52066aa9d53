"""Parameters of views on their way to the image's device: all views' at once, through page-locked memory.

The host never waits for these uploads: torch reuses page-locked memory only after the copies from it.
"""

from collections.abc import Sequence

import torch

from engine.runtime import host_buffer, placed, to_device


def values_on(
    device: torch.device, values: Sequence[object], dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Return numbers, or equally long rows of numbers, as a tensor on a device, without waiting for it."""
    tensor = torch.tensor(values, dtype=dtype)
    return placed(tensor.numpy(), str(device)) if device.type == "cuda" else tensor


def stacked_on(device: torch.device, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return CPU tensors of one shape and dtype, stacked, on a device, without waiting for it."""
    buffer = host_buffer((len(tensors), *tensors[0].shape), tensors[0].dtype, str(device))
    return to_device(torch.stack(list(tensors), out=buffer), str(device))
