"""The result of a verification: every damaged file, with its remedy."""

from dataclasses import dataclass
from typing import TypedDict


class DamageJson(TypedDict):
    """A `Damage` in JSON."""

    feature: str | None
    chunk: int | None
    path: str
    reason: str
    remedy: str


class VerifyJson(TypedDict):
    """A `VerifyReport` in JSON."""

    ok: bool
    chunks: int
    damaged: list[DamageJson]


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

    def to_dict(self) -> DamageJson:
        """Return all fields."""
        return {
            "feature": self.feature,
            "chunk": self.chunk,
            "path": self.path,
            "reason": self.reason,
            "remedy": self.remedy,
        }


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
        """True if nothing is damaged."""
        return not self.damaged

    def to_dict(self) -> VerifyJson:
        """Return `{ok, chunks, damaged: [{feature, chunk, path, reason, remedy}]}`."""
        return {
            "ok": self.ok,
            "chunks": self.chunks,
            "damaged": [damage.to_dict() for damage in self.damaged],
        }
