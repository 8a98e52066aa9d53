"""Words that somebody may have meant who wrote another."""

import difflib
from collections.abc import Iterable, Sequence

#: Suggestions.
MOST = 4


def close(word: str, words: Iterable[str]) -> list[str]:
    """The words most like one, the likest first."""
    return difflib.get_close_matches(word, list(words), n=MOST, cutoff=0.6)


def one_of(words: Sequence[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    return " or ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
