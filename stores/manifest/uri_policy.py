"""The uri policy of manifests: relative POSIX paths that can be read in one way only.

A uri names a file below the manifest's root. What could leave the root, name something other than a file,
or look different from what it is, is refused when the manifest is read, before any image is opened. Long
names are not refused here: the file system decides, and the row fails alone.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stores.errors import PathRefused

if TYPE_CHECKING:
    import pyarrow as pa

#: C0 and C1 controls and the two Unicode line separators; in RE2's and Python's syntax alike.
CONTROL = r"[\x00-\x1f\x7f-\u009f\u2028\u2029]"
#: Characters that reorder the text around them, so that a name is shown as another one.
BIDI = r"[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"

_ALWAYS = (
    ("is empty", r"^$"),
    ("has a control character", CONTROL),
    ("has a character that reverses the direction of text", BIDI),
    ("has a backslash", r"\\"),
    ("starts with a scheme", r"^[A-Za-z][A-Za-z0-9+.-]*:"),
)
_OUTSIDE = (
    ("is absolute", r"^/"),
    ("climbs with `..`", r"(^|/)\.\.(/|$)"),
)
_SHOWN = 3


def rules(allow_outside: bool = False) -> tuple[tuple[str, str], ...]:
    """(what is wrong, regular expression) of the policy; `allow_outside` admits absolute paths and `..`."""
    return _ALWAYS if allow_outside else _ALWAYS + _OUTSIDE


#: What a terminal acts on, what reorders text, and halves of characters that no output takes.
_UNSAFE = re.compile(f"{CONTROL}|{BIDI}|[\ud800-\udfff]")


def plain(text: str) -> str:
    """Text as it may be printed: control characters, reversals of direction and lone surrogates escaped."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def shown(text: str, limit: int = 120) -> str:
    """Text as it may appear in a message: quoted, controls escaped, long text cut."""
    return repr(text if len(text) <= limit else text[:limit] + "...")


def as_re2(regex: str) -> str:
    """The same expression for Arrow, whose RE2 wants the characters themselves rather than `\\uXXXX`."""
    return re.sub(r"\\u([0-9a-f]{4})", lambda m: f"\\x{{{m[1]}}}", regex)


def refuse_bad_uris(
    uris: "pa.ChunkedArray", where: Callable[[int], str], *, allow_outside: bool = False
) -> None:
    """Apply the policy to a whole column at once.

    Args:
        uris: Arrow text column without nulls.
        where: says where a row stands in the user's file, e.g. `line 7`.
        allow_outside: admit absolute paths and `..`.

    Raises:
        PathRefused: naming the count of refused rows and the first few of them.
    """
    import numpy as np
    import pyarrow.compute as pc

    # One pass for what nearly always holds; which rule a row breaks is asked only where one does.
    together = "|".join(f"(?:{regex})" for _, regex in rules(allow_outside))
    if not pc.any(pc.match_substring_regex(uris, pattern=as_re2(together))).as_py():
        return
    found: dict[int, str] = {}
    for name, regex in rules(allow_outside):
        mask: Any = pc.match_substring_regex(uris, pattern=as_re2(regex))
        for row in np.flatnonzero(mask.to_numpy(zero_copy_only=False)).tolist():
            found.setdefault(row, name)
    first = sorted(found)[:_SHOWN]
    examples = "; ".join(f"{where(row)}: {shown(uris[row].as_py())} {found[row]}" for row in first)
    more = f" (and {len(found) - len(first)} more)" if len(found) > len(first) else ""
    outside = {name for name, _ in _OUTSIDE}
    lenient = ", or allow files outside the root explicitly" if set(found.values()) <= outside else ""
    raise PathRefused(
        f"{len(found)} uri{'s' if len(found) > 1 else ''} refused: {examples}{more}",
        "A uri is a relative path with forward slashes that stays below the root",
        "write it relative to the root (a colon in the first name is plain after `./`)" + lenient,
    )
