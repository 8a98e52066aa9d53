"""Named numbers: which of those wanted are there, and which are left out, with the reason."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

#: Numbers by the name of a model (or of a data set); NaN is a missing one.
Numbers: TypeAlias = Mapping[str, float]


@dataclass(frozen=True)
class LeftOut:
    """A name that does not enter a statistic, and why."""

    name: str
    reason: str


def usable(
    names: Sequence[str],
    parts: Mapping[str, Numbers],
    without: Mapping[str, str] | None = None,
) -> tuple[tuple[str, ...], tuple[LeftOut, ...]]:
    """Return the names that have a number in all parts, and those left out, both in order.

    Args:
        names: wanted, without repetition.
        parts: what is wanted of each -> numbers, e.g. `{"accuracy": {...}}`.
        without: name -> why it is left out though it may have numbers.

    Raises:
        ValueError: a name occurs twice, or `without` has one that is not wanted.
    """
    omitted = without or {}
    if len(set(names)) != len(names) or not set(omitted) <= set(names):
        raise ValueError(f"names {list(names)} without {list(omitted)}")
    entered: list[str] = []
    left_out: list[LeftOut] = []
    for name in names:
        missing = [part for part, numbers in parts.items() if not math.isfinite(numbers.get(name, math.nan))]
        if name in omitted:
            left_out.append(LeftOut(name, omitted[name]))
        elif missing:
            left_out.append(LeftOut(name, f"no {' and no '.join(missing)}"))
        else:
            entered.append(name)
    return tuple(entered), tuple(left_out)


def array(numbers: Numbers, names: Sequence[str]) -> NDArray[np.float64]:
    """Return numbers in the order of names, float64 [n]."""
    return np.array([numbers[name] for name in names], np.float64)


def reasons_of(left_out: Sequence[LeftOut]) -> str:
    """Return names by their reason, e.g. `byol, swav (no accuracy); pirl (outlier)`; "" for none."""
    reasons: dict[str, list[str]] = {}
    for one in left_out:
        reasons.setdefault(one.reason, []).append(one.name)
    return "; ".join(f"{', '.join(names)} ({reason})" for reason, names in reasons.items())


def n_of(n: int, left_out: Sequence[LeftOut], what: str = "models") -> str:
    """Return n in words, e.g. `n = 9 of 10 models; without byol (no accuracy)`."""
    if not left_out:
        return f"n = {n} {what}"
    return f"n = {n} of {n + len(left_out)} {what}; without {reasons_of(left_out)}"
