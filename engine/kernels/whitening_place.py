"""The choice of where whitening is applied: by numpy on the CPU, or by torch on a device."""

from typing import TYPE_CHECKING

from engine.kernels.sample_moments import Arithmetic
from engine.kernels.whitening import Whitener, Whitening

if TYPE_CHECKING:
    from engine.kernels.device_whitening import DeviceWhitening


def whitening_on(
    device: str, whitener: Whitener, *, arithmetic: Arithmetic = "float64"
) -> "Whitening | DeviceWhitening":
    """Return what applies a whitener on a device.

    Args:
        device: `cpu` or `cuda:N`.
        whitener, arithmetic: as for `Whitening`.
    """
    if device == "cpu":
        return Whitening(whitener, arithmetic=arithmetic)
    from engine.kernels.device_whitening import DeviceWhitening

    return DeviceWhitening(whitener, arithmetic, device)
