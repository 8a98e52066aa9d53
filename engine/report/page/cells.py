"""Numbers of records as cells of tables."""

import math

from engine.report.page.blocks import Tone, Value
from engine.report.page.svg.ticks import minus


def number_cell(value: float, digits: int = 3, *, reason: str = "", tone: Tone | None = None) -> Value:
    """Return a number with a fixed number of decimals; an undefined one says so, with its reason."""
    if not math.isfinite(value):
        return Value("undefined", reason=reason)
    return Value(minus(f"{value:.{digits}f}"), float(value), reason=reason, tone=tone)


def score_cell(
    value: float, low: float, high: float, digits: int = 3, *, reason: str = "", strong: bool = False
) -> Value:
    """Return a number with its interval; without an interval the number alone."""
    if not math.isfinite(value):
        return Value("undefined", reason=reason)
    if not (math.isfinite(low) and math.isfinite(high)):
        return Value(minus(f"{value:.{digits}f}"), float(value), reason=reason, strong=strong)
    ends = f"{minus(f'{low:.{digits}f}')} to {minus(f'{high:.{digits}f}')}"
    return Value(
        f"{minus(f'{value:.{digits}f}')} ({ends})",
        float(value),
        float(low),
        float(high),
        reason,
        strong=strong,
    )


def difference_cell(value: float, low: float, high: float, digits: int = 3, reason: str = "") -> Value:
    """Return a difference with its sign and interval."""
    if not math.isfinite(value):
        return Value("undefined", reason=reason)
    text = signed(value, digits)
    if not (math.isfinite(low) and math.isfinite(high)):
        return Value(text, float(value), reason=reason)
    ends = f"{signed(low, digits)} to {signed(high, digits)}"
    return Value(f"{text} ({ends})", float(value), float(low), float(high), reason)


def signed(value: float, digits: int = 3) -> str:
    """Return a number with its sign; zero as rounded has none."""
    text = f"{value:+.{digits}f}"
    return minus(text) if any(digit in text for digit in "123456789") else text[1:]


def count_cell(value: float) -> Value:
    """Return a count with thousands separators; empty where it is undefined."""
    return Value(f"{value:,.0f}", float(value)) if math.isfinite(value) else Value("")


def p_cell(value: float) -> Value:
    """Return a p value; empty where there is none."""
    if not math.isfinite(value):
        return Value("")
    return Value("< 0.001" if value < 0.001 else f"{value:.3f}", float(value))


def compact(value: float, digits: int = 3) -> str:
    """Return a number with some significant digits, without trailing zeros."""
    return minus(f"{value:.{digits}g}") if math.isfinite(value) else "undefined"
