"""Splits by their usual names: `train`, `val` and `test`, whatever a table calls them."""

import re
from collections.abc import Sequence

from stores.manifest.text import clean

#: What tables call the three parts, in any case, also with `set` or `split` behind it.
WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(
        ("val", "valid", "validation", "validate", "validating", "dev", "devel", "development"), "val"
    ),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
_BEHIND = re.compile(r"[ _-]?(set|split)$")


def usual(word: str) -> str | None:
    """Give `train`, `val` or `test` for a word that means it; None for any other.

    Args:
        word: as a cell of the column `split` or the name of a folder has it.
    """
    plain = clean(word).casefold()
    return WORDS.get(plain) or WORDS.get(_BEHIND.sub("", plain))


def meant(asked: str, names: Sequence[str]) -> list[str]:
    """Find the splits of a bank that a word means.

    Args:
        asked: the word, as on the command line.
        names: the bank's splits; those of an earlier version may be called `valid`.

    Returns:
        `asked` alone if there is such a split; else all that mean the same part; nothing if there is none.
    """
    if asked in names:
        return [asked]
    part = usual(asked)
    if part is None:
        return [name for name in names if clean(name) == clean(asked)]
    return [part] if part in names else [name for name in names if usual(name) == part]
