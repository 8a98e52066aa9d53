"""Spellings that mean one value to a reader and several to a table: case, leading zeros, a trailing `.0`."""

import re
from collections.abc import Sequence

from stores.manifest.text import cell

_ZEROS = re.compile(r"(?<![0-9.])0+(?=[0-9])")
_POINT = re.compile(r"(?<![0-9.])([0-9]+)\.0*(?![0-9.])")


def spelling_key(value: str) -> str:
    """Return a key that all spellings of a value share.

    Case is folded; every number in the text loses leading zeros (`p007`, `p7`) and a zero fraction (`7.0`).
    """
    plain = cell(value).casefold()
    plain = _POINT.sub(r"\1", plain) if "." in plain else plain
    return _ZEROS.sub("", plain) if "0" in plain else plain


def spelling_variants(values: Sequence[str]) -> list[list[int]]:
    """Group values that differ in spelling only.

    Returns:
        Positions of the values of each group of two or more, in order of first occurrence.
    """
    positions: dict[str, list[int]] = {}
    for position, value in enumerate(values):
        positions.setdefault(spelling_key(value), []).append(position)
    return [group for key, group in positions.items() if len(group) > 1 and key]
