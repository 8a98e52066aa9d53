"""Rows of a bank by the splits that an evaluation uses, and counts of the rows in all other splits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from stores.manifest.split_words import matching_splits

#: How many splits a sentence names.
_SHOWN = 10


@dataclass(frozen=True)
class SplitRows:
    """What the split column gives.

    Attributes:
        rows: part -> bool [N]; all False where no split of the bank is meant.
        others: split -> number of its rows, for splits that no part uses; "" stands for rows without a split.
        notes: which split each requested word was matched to, one sentence each.
    """

    rows: dict[str, NDArray[np.bool_]]
    others: dict[str, int]
    notes: tuple[str, ...]


def split_rows(codes: NDArray[np.integer[Any]], names: Sequence[str], words: Mapping[str, str]) -> SplitRows:
    """Find the rows of each part; `val` also finds a split called `valid`, where there is no `val`.

    Args:
        codes: [N] index into `names`, negative where a row has no split.
        names: of the bank's splits.
        words: part -> the word for its split.

    Raises:
        Refused: two parts mean the same split.
    """
    rows, notes = {}, []
    taken: dict[str, str] = {}
    for part, word in words.items():
        splits = matching_splits(word, names)
        for split in splits:
            if split in taken:
                raise Refused(
                    f"splits {taken[split]!r} and {word!r}: the images of {split!r} would be in both parts",
                    "No image plays two parts",
                    "name different splits",
                )
            taken[split] = word
        rows[part] = np.isin(codes, [names.index(split) for split in splits])
        if splits and splits != [word]:
            notes.append(f"Split {word!r} is {' and '.join(map(repr, splits))} here")
    left = np.asarray(codes)[~np.logical_or.reduce([np.zeros(len(codes), np.bool_), *rows.values()])]
    counts = np.bincount(left[left >= 0], minlength=len(names))
    others = {name: int(n) for name, n in zip(names, counts, strict=True) if n}
    return SplitRows(rows, others | ({"": none} if (none := int((left < 0).sum())) else {}), tuple(notes))


def have(codes: NDArray[np.integer[Any]], names: Sequence[str]) -> str:
    """Return a sentence that lists the existing splits, for a message."""
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    return ", ".join(f"{name} ({n})" for name, n in zip(names, counts, strict=True)) or "no splits"


def others_note(others: Mapping[str, int]) -> str:
    """Return a sentence on the rows of splits that were not requested; "" if there are none."""
    if not others:
        return ""
    named = [f"{name or 'without a split'} {n:,}" for name, n in list(others.items())[:_SHOWN]]
    remainder = f" and {len(others) - _SHOWN} other splits" if len(others) > _SHOWN else ""
    count = sum(others.values())
    what = "1 image of another split takes" if count == 1 else f"{count:,} images of other splits take"
    return f"{what} no part: {', '.join(named)}{remainder}"
