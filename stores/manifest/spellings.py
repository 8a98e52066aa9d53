"""Values that a reader takes for one and a table for several: other case, leading zeros, a trailing `.0`."""

import re
from collections.abc import Sequence

from stores.manifest.text import cell

_ZEROS = re.compile(r"(?<![0-9.])0+(?=[0-9])")
_POINT = re.compile(r"(?<![0-9.])([0-9]+)\.0*(?![0-9.])")


def key(value: str) -> str:
    """Give what all spellings of a value share.

    Case is folded; every number in it loses leading zeros (`p007`, `p7`) and a fraction of zeros (`7.0`).
    """
    plain = cell(value).casefold()
    plain = _POINT.sub(r"\1", plain) if "." in plain else plain
    return _ZEROS.sub("", plain) if "0" in plain else plain


def alike(values: Sequence[str]) -> list[list[int]]:
    """Group values that differ in spelling only.

    Returns:
        Positions of each group of two or more, in order of first occurrence.
    """
    at: dict[str, list[int]] = {}
    for place, value in enumerate(values):
        at.setdefault(key(value), []).append(place)
    return [places for name, places in at.items() if len(places) > 1 and name]
