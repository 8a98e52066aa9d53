"""Perceptual distances of pairs, and their means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum, nan

from engine.models.perceptual import Trunk
from stores.json_types import JsonObject


@dataclass(frozen=True)
class PairDistance:
    """The distances of one pair.

    Attributes:
        a, b: paths relative to the folders; None where a partner is missing.
        lpips: net -> distance, and `mean`, their plain mean; NaN where `reason` says why.
        reason: why there is no distance; else "".
    """

    a: str | None
    b: str | None
    lpips: Mapping[str, float]
    reason: str = ""

    def to_dict(self) -> JsonObject:
        """Return the pair as JSON types."""
        return {"a": self.a, "b": self.b, "lpips": dict(self.lpips), "reason": self.reason}


@dataclass(frozen=True)
class PerceptualResult:
    """The distances of all pairs.

    Attributes:
        pairs: in order of name.
        nets: that were computed.
        trunks: their weights.
        side: in pixels, to which images were rendered; None for their own size.
        device: `cpu` or `cuda:N`.
        seconds: for all.
        notes: remarks for the reader, one sentence each.
    """

    pairs: Sequence[PairDistance]
    nets: Sequence[str]
    trunks: Sequence[Trunk] = ()
    side: int | None = None
    device: str = "cpu"
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> int:
        """Number of pairs without a distance."""
        return sum(bool(pair.reason) for pair in self.pairs)

    @property
    def mean(self) -> dict[str, float]:
        """Net -> mean over pairs, and `mean`, the mean over nets and pairs; NaN without a sound pair."""
        sound = [pair.lpips for pair in self.pairs if not pair.reason]
        keys = (*self.nets, "mean")
        return {key: fsum(p[key] for p in sound) / len(sound) if sound else nan for key in keys}

    def columns(self) -> dict[str, list[object]]:
        """Return the table of pairs: a, b, a column for each net, mean, reason; None where undefined."""
        numbers: dict[str, list[object]] = {
            key: [None if pair.reason else pair.lpips[key] for pair in self.pairs]
            for key in (*self.nets, "mean")
        }
        return {
            "a": [pair.a for pair in self.pairs],
            "b": [pair.b for pair in self.pairs],
            **numbers,
            "reason": [pair.reason for pair in self.pairs],
        }

    def to_dict(self) -> JsonObject:
        """Return the result as JSON types."""
        return {
            "pairs": [pair.to_dict() for pair in self.pairs],
            "mean": dict(self.mean),
            "failed": self.failed,
            "nets": list(self.nets),
            "trunks": [trunk.to_dict() for trunk in self.trunks],
            "side": self.side,
            "device": self.device,
            "seconds": round(self.seconds, 3),
            "notes": list(self.notes),
        }
