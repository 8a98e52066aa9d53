"""Numbers of a result in the one line that an interpreter shows of it."""

import math


def number(value: float, digits: int = 4) -> str:
    """Format a number, or return `undefined` for NaN."""
    return "undefined" if math.isnan(value) else f"{value:.{digits}f}"


def within(value: float, low: float, high: float) -> str:
    """Format a number with its interval; the number alone where the interval is undefined."""
    if math.isnan(low) or math.isnan(high):
        return f"{number(value)} (no interval)"
    return f"{number(value)} [{low:.4f}, {high:.4f}]"


def counted(count: int, noun: str) -> str:
    """Format a count and its noun: `1 image`, `2,000 images`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
