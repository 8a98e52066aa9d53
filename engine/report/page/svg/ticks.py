"""Ticks of linear and logarithmic axes, and their labels."""

import math
from collections.abc import Iterator, Sequence

#: Leading digits of the step between ticks.
_STEPS = (1, 2, 5)
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def linear_ticks(low: float, high: float, most: int = 6) -> tuple[float, ...]:
    """Return round numbers within a range: multiples of 1, 2 or 5 times a power of ten, at most `most`.

    Args:
        low, high: finite, low <= high.
        most: at least 2.
    """
    if not low < high:
        return (low,)
    lead, power = _step(low, high, most)
    ticks = dict.fromkeys(_multiple(i, lead, power) for i in _indices(low, high, lead, power))
    return tuple(tick for tick in ticks if low <= tick <= high)


def nice_bounds(low: float, high: float, most: int = 6) -> tuple[float, float]:
    """Return a range outwards to ticks, which are its ends. Arguments as for `linear_ticks`, low < high."""
    for lead, power in _steps_from(*_step(low, high, most)):
        indices = _indices(low, high, lead, power)
        first, last = indices[0], indices[-1]
        while _multiple(first, lead, power) > low:
            first -= 1
        while _multiple(last, lead, power) < high:
            last += 1
        bounds = _multiple(first, lead, power), _multiple(last, lead, power)
        if not all(map(math.isfinite, bounds)):
            break
        ticks = linear_ticks(*bounds, most)
        if (ticks[0], ticks[-1]) == bounds:
            return bounds
    return low, high


def _steps_from(lead: int, power: int) -> Iterator[tuple[int, int]]:
    """Yield a step and all larger ones."""
    while power < 308:
        yield lead, power
        place = _STEPS.index(lead) + 1
        lead, power = (_STEPS[place], power) if place < len(_STEPS) else (1, power + 1)


def _step(low: float, high: float, most: int) -> tuple[int, int]:
    """Return the lead and power of ten of the smallest round step that gives at most `most` ticks."""
    half = high / 2 - low / 2  # the span may be too large for a float
    power = math.floor(math.log10(half / most)) - 1 if half > 0 else -320
    power = max(power, -323)
    while True:
        for lead in _STEPS:
            # at worst a tick at both ends
            if half / most <= _multiple(lead, 1, power) / 2 and len(_indices(low, high, lead, power)) <= most:
                return lead, power
        power += 1


def _indices(low: float, high: float, lead: int, power: int) -> range:
    """Return i of all i * lead * 10**power within the range; of none the nearest."""
    first, last = _quotient(low, lead, power), _quotient(high, lead, power)
    start, stop = math.ceil(first - 1e-9), math.floor(last + 1e-9)
    return range(start, stop + 1) if stop >= start else range(start, start + 1)


def _quotient(value: float, lead: int, power: int) -> float:
    scaled = value / lead
    # two factors, since 10**-power of a tiny step is too large for a float
    return scaled * 10.0 ** (-power - 300) * 1e300 if -power > 300 else scaled * 10.0**-power


def _multiple(index: int, lead: int, power: int) -> float:
    """Return index * lead * 10**power, correctly rounded."""
    return float(f"{index * lead}e{power}")


def log_ticks(low: float, high: float, most: int = 6) -> tuple[float, ...]:
    """Return powers of ten within a range, with 2 and 5 between them where these are few.

    Args:
        low, high: positive, low <= high.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    powers = range(first, last + 1)
    tens = _within([float(f"1e{power}") for power in powers], low, high)
    if len(tens) > most:
        stride = -(-len(tens) // most)
        return tuple(tens[place] for place in range(len(tens) % stride and 0, len(tens), stride))
    if len(tens) >= 3:
        return tens
    finer = [float(f"{lead}e{power}") for power in powers for lead in _STEPS]
    ticks = _within(finer, low, high)
    return ticks if 2 <= len(ticks) <= max(most, 2) else tens or (ticks[:1] or (low,))


def _within(values: Sequence[float], low: float, high: float) -> tuple[float, ...]:
    inside = (value for value in values if low * (1 - 1e-9) <= value <= high * (1 + 1e-9))
    return tuple(value for value in inside if math.isfinite(value))


def tick_labels(ticks: Sequence[float]) -> tuple[str, ...]:
    """Return labels of linear ticks with equally many decimals; of very large or small ones, exponents."""
    largest = max((abs(tick) for tick in ticks), default=0.0)
    if largest and not 1e-3 <= largest < 1e6:
        return tuple(_exponential(tick) for tick in ticks)
    decimals = max((_decimals(tick) for tick in ticks), default=0)
    return tuple(
        minus(f"{tick:,.{decimals}f}" if abs(tick) >= 1e4 else f"{tick:.{decimals}f}") for tick in ticks
    )


def log_labels(ticks: Sequence[float]) -> tuple[str, ...]:
    """Return labels of logarithmic ticks: short plain numbers, or powers of ten where some are long."""
    if all(1e-3 <= tick <= 1e4 for tick in ticks):
        return tuple(
            f"{tick:,.{_decimals(tick)}f}" if tick > 999 else f"{tick:.{_decimals(tick)}f}" for tick in ticks
        )
    return tuple("1" if tick == 1 else _exponential(tick) for tick in ticks)


def _decimals(value: float) -> int:
    """Return the decimals of a round number, at most 6."""
    return next((places for places in range(7) if math.isclose(round(value, places), value, rel_tol=1e-9)), 6)


def _exponential(value: float) -> str:
    """Return a number as a power of ten, e.g. 10⁻⁵ or 2·10⁶."""
    if value == 0:
        return "0"
    mantissa, _, exponent = f"{value:.3e}".partition("e")
    lead = mantissa.rstrip("0").rstrip(".")
    ten = f"10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    return ten if lead == "1" else f"−{ten}" if lead == "-1" else minus(f"{lead}·{ten}")


def minus(text: str) -> str:
    """Return a formatted number with the typographic minus; zero has no sign."""
    if text.startswith("-") and not any(digit in text for digit in "123456789"):
        return text[1:]
    return text.replace("-", "−", 1) if text.startswith("-") else text
