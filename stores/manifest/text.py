"""Text as people see it: what nobody can see a difference in is one value.

Cells and headers lose spaces at their ends and characters that show nothing (zero-width ones, byte order
marks, variation selectors), any space of Unicode becomes the plain one, and letters take their composed form
(NFC). Words that stand for a missing value are known here too. `stores.manifest.tidying` applies both to
tables.
"""

import itertools
import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from stores.manifest.uri_policy import shown

if TYPE_CHECKING:
    import pyarrow as pa

#: Characters that show nothing: Unicode's Default_Ignorable_Code_Point, but for the selectors that choose a
#: form of an ideograph, which can be seen; and the marks of interlinear notes.
_INVISIBLE = (
    (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F),
    (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFFB), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A),
    (0xE0000, 0xE00FF),
)  # fmt: skip
#: Spaces (general category Zs) other than the plain one; the no-break spaces are among them.
_SPACES = ((0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x202F, 0x202F), (0x205F, 0x205F),
           (0x3000, 0x3000))  # fmt: skip
_ENDS = " \t\r\n\v\f"
#: Words for a missing value, in any case, and what a single dash may be written with.
_MISSING_WORDS = ("none", "null", "nan", "na", "n/a", "<na>")
_DASHES = ("-", *map(chr, range(0x2010, 0x2016)), "\u2212")
_SHOWN = 5


def _class(ranges: Sequence[tuple[int, int]]) -> str:
    """A character class in the syntax that RE2 and Python share."""
    return "[" + "".join(f"{chr(low)}-{chr(high)}" for low, high in ranges) + "]"


_INVISIBLE_CLASS, _SPACE_CLASS = _class(_INVISIBLE), _class(_SPACES)
_INVISIBLE_RE, _SPACE_RE = re.compile(_INVISIBLE_CLASS), re.compile(_SPACE_CLASS)


def clean(text: str) -> str:
    """Take out what nobody sees: spaces at the ends, invisible characters, other forms of a letter."""
    if text.isascii():
        return text.strip(_ENDS)
    plain = _INVISIBLE_RE.sub("", _SPACE_RE.sub(" ", text))
    return unicodedata.normalize("NFC", plain).strip(_ENDS)


def cell(text: str) -> str:
    """Read one cell: clean, and empty where the word stands for a missing value."""
    word = clean(text)
    return "" if word.casefold() in _MISSING_WORDS or word in _DASHES else word


def cleaned(column: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """Apply `clean` to a `large_string` column without nulls."""
    import pyarrow as pa
    import pyarrow.compute as pc

    trimmed = pc.utf8_trim(column, characters=_ENDS)
    beyond = pc.invert(pc.string_is_ascii(trimmed))
    if not pc.any(beyond).as_py():
        return trimmed
    spaced = pc.replace_substring_regex(trimmed.filter(beyond), pattern=_SPACE_CLASS, replacement=" ")
    seen = pc.replace_substring_regex(spaced, pattern=_INVISIBLE_CLASS, replacement="")
    plain = pc.utf8_trim(pc.utf8_normalize(seen, form="NFC"), characters=_ENDS)
    whole, mask = pa.concat_arrays(trimmed.chunks), pa.concat_arrays(beyond.chunks)
    return pa.chunked_array([pc.replace_with_mask(whole, mask, pa.concat_arrays(plain.chunks))])


@cache
def missing_words() -> "pa.Array":
    """All spellings of the words for a missing value: looking one up is quicker than folding a column."""
    import pyarrow as pa

    spellings = {
        "".join(letters)
        for word in _MISSING_WORDS
        for letters in itertools.product(*({letter, letter.upper()} for letter in word))
    }
    return pa.array([*sorted(spellings), *_DASHES], pa.large_string())


def clean_names(names: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Clean the names of columns.

    Returns:
        (names, a note that says which changed, if any).
    """
    new = [clean(name) for name in names]
    odd = [name for name, old in zip(new, names, strict=True) if name != old]
    note = f"header: {', '.join(map(shown, odd[:_SHOWN]))} read without what cannot be seen"
    return new, (note,) if odd else ()
