"""Numbers that are measurements rather than classes: an age in days, an intensity, an accession number."""

from collections.abc import Sequence

#: Remedy for a column of measurements that was named as the label.
REMEDY = "make classes of it first, such as a column of ranges (`0-39`, `40-59`, ...), or name another column"
#: With more values than this, nearly one value an image cannot be due to a small number of images.
_MANY = 20


def is_measurement(values: Sequence[str], images: int) -> bool:
    """Return whether a column holds numbers, with as many values as images or nearly so.

    A class needs several images, at least one to learn from and one to test. "Nearly" means nine values for
    ten images, and one for two where the numbers have fractions, as measurements do.

    Args:
        values: distinct values of the column, as text.
        images: number of images that have a value.
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
