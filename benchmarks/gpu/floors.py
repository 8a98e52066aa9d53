"""Floors: the least time that the machine's own ceilings allow for the work of a rate, beside the rate.

A bound is an amount of work (bytes, floating-point operations, images) and the ceiling that limits it,
measured in the same run. All bounds of a work may overlap, so its floor is the longest of their times:

    floor = max over bounds of amount / ceiling

`share_of_floor` is 1 where the measurement is at the floor: floor / measured for a time, measured / floor for
a rate (whose floor is the most that the ceilings allow).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

#: Where a ceiling was not measured in the run.
NOT_MEASURED = "not measured"
#: Seconds of a unit of time.
_TIMES = {"s": 1.0, "ms": 1e-3}

# Names of ceilings.
UP, DOWN = "host to device, pinned", "device to host, pinned"
UP_PAGEABLE, DOWN_PAGEABLE = "host to device, pageable", "device to host, pageable"
MEMORY = "device memory, read + written"
GEMM = {name: f"matrix product, {name}" for name in ("fp32", "tf32", "bf16", "fp16", "fp64")}


def nvjpeg(kind: str, load: int) -> str:
    """Return the name of the ceiling of DALI's decoder for a kind of file."""
    return f"nvJPEG, {kind}, hw_decoder_load {load}"


def host_jpeg(kind: str) -> str:
    """Return the name of the ceiling of libjpeg-turbo on all cores for a kind of file."""
    return f"libjpeg-turbo on all cores, {kind}"


@dataclass(frozen=True)
class Bound:
    """A part of a work that one ceiling limits.

    Attributes:
        by: what limits it.
        ceiling: name of the ceiling, in amounts a second.
        amount: bytes, floating-point operations or images; of one item where a rate is measured.
        formula: how the amount is computed.
    """

    by: Literal["copy", "memory", "gemm", "decode"]
    ceiling: str
    amount: float
    formula: str


@dataclass(frozen=True)
class Reading:
    """A measured number with its floor.

    Attributes:
        name: of the target that it is held against, or any other.
        measured: the number.
        unit: `s` or `ms`, or a rate, which ends in `/s`; other units have no floor.
        floor: in the same unit; None where there is none.
        share: of the floor that was reached; None without a floor.
        bound_by: kind of the bound that sets the floor, or why there is none.
        formulas: of the bounds.
    """

    name: str
    measured: float
    unit: str
    floor: float | None = None
    share: float | None = None
    bound_by: str = "none: a ratio of measurements"
    formulas: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return `{name, measured, unit, floor, share_of_floor, bound_by, formulas}` for JSON."""
        return {
            "name": self.name,
            "measured": self.measured,
            "unit": self.unit,
            "floor": NOT_MEASURED if self.floor is None else self.floor,
            "share_of_floor": NOT_MEASURED if self.share is None else self.share,
            "bound_by": self.bound_by,
            "formulas": list(self.formulas),
        }


def reading(
    name: str, measured: float, unit: str, bounds: Iterable[Bound], ceilings: Mapping[str, float]
) -> Reading:
    """Put a measurement beside its floor.

    Args:
        name, measured, unit: as the attributes of `Reading`.
        bounds: of the measured work, or of one item of a rate; at least one. An amount of 0 was not counted.
        ceilings: name -> amounts a second.
    """
    bounds = tuple(bounds)
    formulas = tuple(f"{bound.by}: {bound.formula}" for bound in bounds)
    if missing := sorted({bound.ceiling for bound in bounds} - set(ceilings)):
        reason = f"{NOT_MEASURED}: {'; '.join(missing)}"
        return Reading(name, measured, unit, bound_by=reason, formulas=formulas)
    if uncounted := [bound.formula for bound in bounds if bound.amount <= 0]:
        return Reading(name, measured, unit, bound_by=f"not counted: {uncounted[0]}", formulas=formulas)
    seconds, by = max((bound.amount / ceilings[bound.ceiling], bound.by) for bound in bounds)
    if unit in _TIMES:
        floor = seconds / _TIMES[unit]
        share = floor / measured
    elif unit.endswith("/s"):
        floor = 1 / seconds
        share = measured / floor
    else:
        raise ValueError(f"no floor of the unit {unit!r}")
    return Reading(name, measured, unit, floor, share, by, formulas)


def share_of_stage(name: str, share: float, stage: str) -> Reading:
    """Return a reading that is itself the share of its floor, set by the slower of two stages."""
    return Reading(name, share, "of its slower stage", 1.0, share, f"{stage}, measured beside it")


# Amounts of work. ResNet-50: multiply-adds of a pass at 224 x 224, times two.
RESNET50_FLOP = 2 * 4.089e9


def resnet50_gemm(precision: str) -> Bound:
    """Return the bound of one image's pass through ResNet-50."""
    return Bound("gemm", GEMM[precision], RESNET50_FLOP, f"2 x 4.089e9 flop an image, {precision}")


def vit_flop(tokens: int, width: int, layers: int, patch: int) -> float:
    """Return the floating-point operations of a vision transformer's pass, MLP four times as wide."""
    blocks = layers * (24.0 * tokens * width**2 + 4.0 * tokens**2 * width)
    return blocks + 2.0 * (tokens - 1) * 3 * patch**2 * width
