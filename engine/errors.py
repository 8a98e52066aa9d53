"""Errors of the engine; the base classes are in `stores.errors`."""

from stores.errors import BankError, EmbankError, MachineFault, ManifestError, PathRefused, Refused

__all__ = [
    "BadImage",
    "BankError",
    "ChangedImage",
    "DeviceLost",
    "EmbankError",
    "MachineFault",
    "ManifestError",
    "ModelError",
    "OutOfMemory",
    "PathRefused",
    "Refused",
    "WeightsError",
]


class ModelError(Refused):
    """An unknown model, or one whose package is not installed."""


class WeightsError(Refused):
    """A weights file that is not trustworthy or does not fit its architecture."""


class ChangedImage(Refused):
    """An image file that differs from the one a row of a bank was made from."""


class OutOfMemory(MachineFault):
    """Exhausted memory of the machine or of its device."""


class DeviceLost(MachineFault):
    """A device failure after which this process cannot use the device; another process may succeed.

    Attributes:
        worker: name of the worker process that lost the device; "" without workers.
    """

    worker: str = ""


class BadImage(Exception):
    """An unusable image. The run continues, and the image's row is marked as failed with this reason.

    Args:
        code: short stable word, e.g. `truncated` (listed in `engine.decode.protocol`).
        detail: one line for the ledger, without newlines or paths outside the root.
        pending: the machine or a setting is at fault, not the image (a mount, a permission, a limit, a
            missing package): the row is not embedded yet, and the same command tries it again.
    """

    def __init__(self, code: str, detail: str, *, pending: bool = False) -> None:
        self.code, self.detail, self.pending = code, detail, pending
        super().__init__(f"{code}: {detail}")
