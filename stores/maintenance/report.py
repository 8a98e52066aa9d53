"""What a verification found."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Damage:
    """One file that is not what it should be.

    Attributes:
        feature: name, or None if the file is the bank's own.
        chunk: index, or None if the file is not a chunk's.
        path: relative to the bank.
        reason: what is wrong.
        remedy: what mends it.
    """

    feature: str | None
    chunk: int | None
    path: str
    reason: str
    remedy: str = ""


@dataclass(frozen=True)
class VerifyReport:
    """The result of a verification.

    Attributes:
        chunks: how many were read.
        damaged: every damaged file.
    """

    chunks: int
    damaged: tuple[Damage, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damaged

    def to_dict(self) -> dict[str, Any]:
        """Return `{ok, chunks, damaged: [{feature, chunk, path, reason, remedy}]}`."""
        return {"ok": self.ok, "chunks": self.chunks, "damaged": [asdict(damage) for damage in self.damaged]}
