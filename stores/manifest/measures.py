"""Numbers that measure rather than name: an age in days, an intensity, an accession number."""

from collections.abc import Sequence

#: What to do instead of taking them for classes.
REMEDY = "make classes of it first, such as a column of ranges (`0-39`, `40-59`, ...), or name another column"
#: Numbers from which an almost different value for each image cannot be a matter of few images.
_MANY = 20


def measured(values: Sequence[str], images: int) -> bool:
    """Whether a column's values are numbers, and as many as its images or nearly so.

    A class needs images, at least one to learn and one to test. Nearly is nine values for ten images, and
    one for two where numbers have fractions, as measurements have.

    Args:
        values: different values of the column, as text.
        images: that have a value.
    """
    if len(values) < 3 or 2 * len(values) <= images:
        return False
    numbers = [_number(value) for value in values]
    if None in numbers:
        return False
    if len(values) == images:
        return True
    fractions = any(number != int(number) for number in numbers if number is not None)
    return len(values) > _MANY and (fractions or 10 * len(values) >= 9 * images)


def _number(value: str) -> float | None:
    try:
        number = float("" if "_" in value else value)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None
