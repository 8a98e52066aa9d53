"""Numbers as cells of tables; what is undefined is a dash with its reason."""

from engine.report.page.blocks import Value


def number_value(value: float, form: str = "{:.3f}", reason: str = "") -> Value:
    """Return a number as a cell.

    Args:
        form: as `str.format` takes it.
        reason: why it is undefined, where it is NaN.
    """
    return Value("–", reason=reason) if value != value else Value(_text(value, form), value)


def interval_value(value: float, low: float, high: float, reason: str = "", form: str = "{:.3f}") -> Value:
    """Return a number with its interval as a cell, e.g. `0.750 (0.542–0.917)`; ends may be NaN."""
    if value != value or low != low or high != high:
        return number_value(value, form, reason)
    between = " to " if low < 0 else "–"
    ends = f"{_text(low, form)}{between}{_text(high, form)}"
    return Value(f"{_text(value, form)} ({ends})", value, low, high)


def _text(value: float, form: str) -> str:
    text = form.format(value)
    return f"−{text[1:]}" if text.startswith("-") else text
