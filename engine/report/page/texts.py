"""Texts as the page shows them."""

import re

from engine.report.page.blocks import Value
from stores.manifest.uri_policy import plain

#: A number and its interval: `0.750 (0.542-0.917)`, `0.75 ± 0.02`.
_INTERVAL = re.compile(r"(\S+)\s+((?:[(\[±]|\+/-).*)", re.DOTALL)


def shown(text: str) -> str:
    """Return text whose controls and changes of direction are codes; line ends stay."""
    return "\n".join(map(plain, text.split("\n")))


def parts_of(value: Value) -> tuple[str, str]:
    """Return the number and the interval in the text of a cell; the interval is set in small type."""
    match = _INTERVAL.fullmatch(value.text) if value.number is not None else None
    return (match[1], match[2]) if match else (value.text, "")
