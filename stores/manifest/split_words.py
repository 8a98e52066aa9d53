"""The names of splits: `train`, `val` and `test`, and what tables call them."""

import re
from collections.abc import Sequence

from stores.manifest.text import clean

#: Names that tables use, in any case and perhaps followed by `set` or `split` -> the usual one.
WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(
        ("val", "valid", "validation", "validate", "validating", "dev", "devel", "development"), "val"
    ),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
_ENDING = re.compile(r"[ _-]?(set|split)$")


def usual_split(word: str) -> str | None:
    """Return `train`, `val` or `test` for a word that means it; None for any other.

    Args:
        word: a cell of the column `split`, or the name of a folder.
    """
    plain = clean(word).casefold()
    return WORDS.get(plain) or WORDS.get(_ENDING.sub("", plain))


def matching_splits(word: str, names: Sequence[str]) -> list[str]:
    """Find the splits of a bank that a word means.

    Args:
        word: as on the command line.
        names: the bank's splits; a bank made by an earlier version may have `valid`.

    Returns:
        `word` alone if there is such a split; else all that mean the same part; empty if there is none.
    """
    if word in names:
        return [word]
    part = usual_split(word)
    if part is None:
        return [name for name in names if clean(name) == clean(word)]
    return [part] if part in names else [name for name in names if usual_split(name) == part]
