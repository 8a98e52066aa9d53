"""The engine's branch of the error tree (its root is in `stores.errors`)."""

from stores.errors import BankError, EmbankError, MachineFault, ManifestError, PathRefused, Refused

__all__ = [
    "BadImage",
    "BankError",
    "EmbankError",
    "MachineFault",
    "ManifestError",
    "ModelError",
    "PathRefused",
    "Refused",
    "WeightsError",
]


class ModelError(Refused):
    """An unknown model, or one whose package is not installed."""


class WeightsError(Refused):
    """A weights file that cannot be trusted or does not fit its architecture."""


class BadImage(Exception):
    """One image cannot be used. Costs its row, never the run: the row is marked failed with this reason.

    Args:
        code: short stable word, e.g. `truncated` (the list is in `engine.decode.protocol`).
        detail: one line for the ledger; no paths outside the root, no newline.
    """

    def __init__(self, code: str, detail: str) -> None:
        self.code, self.detail = code, detail
        super().__init__(f"{code}: {detail}")
