"""The uri policy of manifests: relative POSIX paths that can be read in one way only.

A uri names a file below the manifest's root. Uris that could leave the root, name something other than a
file, or be displayed as another name are refused when the manifest is read, before any image is opened. Long
names are not refused here: the file system decides, and only their row fails.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stores.errors import PathRefused

if TYPE_CHECKING:
    import pyarrow as pa

#: C0 and C1 controls and the two Unicode line separators, in Python's syntax (`as_re2` gives Arrow's).
CONTROL = r"[\x00-\x1f\x7f-\u009f\u2028\u2029]"
#: Characters that reorder the text around them, so that a name is displayed as another one.
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
    """Return the policy as pairs (what is wrong with a uri, regular expression that finds it).

    Args:
        allow_outside: admit absolute paths and `..`.
    """
    return _ALWAYS if allow_outside else _ALWAYS + _OUTSIDE


#: Characters that a terminal acts on, that reorder text, or (lone surrogates) that cannot be encoded.
_UNSAFE = re.compile(f"{CONTROL}|{BIDI}|[\ud800-\udfff]")


def plain(text: str) -> str:
    """Return text that is safe to print: controls, changes of text direction and lone surrogates escaped."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def shown(text: str, limit: int = 120) -> str:
    """Return text for use in a message: quoted, controls escaped, shortened to `limit` characters."""
    return repr(text if len(text) <= limit else text[:limit] + "...")


def as_re2(regex: str) -> str:
    """Translate a regular expression for Arrow, whose RE2 has `\\x{XXXX}` for Python's `\\uXXXX`."""
    return re.sub(r"\\u([0-9a-f]{4})", lambda match: f"\\x{{{match[1]}}}", regex)


def refuse_bad_uris(
    uris: "pa.ChunkedArray", where: Callable[[int], str], *, allow_outside: bool = False
) -> None:
    """Apply the policy to a whole column at once.

    Args:
        uris: Arrow text column without nulls.
        where: says where a row stands in the user's file, e.g. `line 7`.
        allow_outside: admit absolute paths and `..`.

    Raises:
        PathRefused: with the number of refused rows and the first few of them.
    """
    import numpy as np
    import pyarrow.compute as pc

    # Nearly every column is clean, so that one pass with all rules suffices; only then is each rule tried.
    any_rule = "|".join(f"(?:{regex})" for _, regex in rules(allow_outside))
    if not pc.any(pc.match_substring_regex(uris, pattern=as_re2(any_rule))).as_py():
        return
    fault_of: dict[int, str] = {}
    for fault, regex in rules(allow_outside):
        mask: Any = pc.match_substring_regex(uris, pattern=as_re2(regex))
        for row in np.flatnonzero(mask.to_numpy(zero_copy_only=False)).tolist():
            fault_of.setdefault(row, fault)
    first = sorted(fault_of)[:_SHOWN]
    examples = "; ".join(f"{where(row)}: {shown(uris[row].as_py())} {fault_of[row]}" for row in first)
    more = f" (and {len(fault_of) - len(first)} more)" if len(fault_of) > len(first) else ""
    outside = {fault for fault, _ in _OUTSIDE}
    alternative = ", or allow files outside the root explicitly" if set(fault_of.values()) <= outside else ""
    raise PathRefused(
        f"{len(fault_of)} uri{'s' if len(fault_of) > 1 else ''} refused: {examples}{more}",
        "A uri is a relative path with forward slashes that stays below the root",
        "write it relative to the root (a colon in the first name is plain after `./`)" + alternative,
    )
