"""Suggestions for misspelt words."""

import difflib
from collections.abc import Iterable, Sequence

MAX_SUGGESTIONS = 4


def close_matches(word: str, words: Iterable[str]) -> list[str]:
    """Return the words most similar to one, the most similar first."""
    return difflib.get_close_matches(word, list(words), n=MAX_SUGGESTIONS, cutoff=0.6)


def either_of(words: Sequence[str]) -> str:
    """Join words as `a`, `a or b`, `a, b or c`."""
    return " or ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
