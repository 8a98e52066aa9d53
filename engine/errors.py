"""The engine's branch of the error tree (its root is in `stores.errors`)."""

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
    """A weights file that cannot be trusted or does not fit its architecture."""


class ChangedImage(Refused):
    """An image file that is not the one that a row of a bank was made from."""


class OutOfMemory(MachineFault):
    """The memory of the machine, or of its device, does not suffice for what is computed at a time."""


class DeviceLost(MachineFault):
    """The device failed in a way that leaves it useless to this process; another process may succeed.

    Attributes:
        worker: name of the worker process that lost it; empty where there are no workers.
    """

    worker: str = ""


class BadImage(Exception):
    """One image cannot be used. Costs its row, never the run: the row is marked failed with this reason.

    Args:
        code: short stable word, e.g. `truncated` (the list is in `engine.decode.protocol`).
        detail: one line for the ledger; no paths outside the root, no newline.
        pending: the machine or a setting is at fault, not the image (a mount, a permission, a limit, a
            package that is not installed): the row is not embedded yet, and the same command tries it again.
    """

    def __init__(self, code: str, detail: str, *, pending: bool = False) -> None:
        self.code, self.detail, self.pending = code, detail, pending
        super().__init__(f"{code}: {detail}")
