"""SVG elements as text, escaped."""

import math
import re
from typing import NewType

from stores.manifest.uri_policy import plain

#: Text that is SVG already.
Markup = NewType("Markup", str)

_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*")
#: What neither XML 1.0 nor HTML can hold, besides what `plain` escapes.
_NONCHARACTER = re.compile("[\ufdd0-\ufdef\ufffe\uffff]")
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"}


def escaped(text: str) -> Markup:
    """Return plain text as markup, for content and for attributes in double quotes."""
    safe = _NONCHARACTER.sub("\ufffd", plain(text))
    return Markup("".join(_ESCAPES.get(character, character) for character in safe))


def number(value: float) -> str:
    """Format a coordinate to hundredths, as short as possible.

    Raises:
        ValueError: it is not finite.
    """
    if not math.isfinite(value):
        raise ValueError(f"{value} is no coordinate")
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def element(tag: str, content: str = "", **attributes: str | float | None) -> Markup:
    """Return an element.

    Args:
        content: markup within it.
        attributes: texts, which are escaped, and coordinates; None leaves one out. Underscores stand for
            hyphens, and one at the end is left out (`class_`).

    Raises:
        ValueError: the name of the tag or of an attribute is no plain one, or an attribute is a style or a
            script, which the page's content-security policy forbids.
    """
    parts = [tag]
    for key, value in attributes.items():
        name = key.rstrip("_").replace("_", "-")
        if not _NAME.fullmatch(name) or name == "style" or name.startswith("on"):
            raise ValueError(f"attribute {name!r} of <{tag}>")
        if value is not None:
            parts.append(f'{name}="{escaped(value) if isinstance(value, str) else number(value)}"')
    if not _NAME.fullmatch(tag) or tag in ("script", "style", "foreignObject"):
        raise ValueError(f"element {tag!r}")
    start = " ".join(parts)
    return Markup(f"<{start}>{content}</{tag}>" if content else f"<{start}/>")


def joined(*parts: str) -> Markup:
    """Return markup one after the other."""
    return Markup("".join(parts))


def group(content: str, class_: str | None = None) -> Markup:
    """Return a group, or nothing where it would be empty."""
    return element("g", content, class_=class_) if content else Markup("")


def drawing(identity: str, width: float, height: float, title: str, description: str, content: str) -> Markup:
    """Return an `<svg>` element, which screen readers announce by its title and description.

    Args:
        identity: unique on the page, of letters, digits and hyphens.
        width, height: units; it is scaled to the room that it gets.
        title: what it is; description: what it shows.
        content: markup.

    Raises:
        ValueError: `identity` is no plain name.
    """
    if not _NAME.fullmatch(identity):
        raise ValueError(f"id {identity!r}")
    head = joined(
        element("title", escaped(title), id=f"{identity}-title"),
        element("desc", escaped(description), id=f"{identity}-desc"),
    )
    size = f"{number(width)} {number(height)}"
    start = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" id="{identity}" viewBox="0 0 {size}" '
        f'role="img" aria-labelledby="{identity}-title {identity}-desc">'
    )
    return Markup(f"{start}{head}{content}</svg>")


def panels(drawings: "list[Markup]", class_: str = "") -> Markup:
    """Return drawings that stand beside one another as the page's width allows.

    Args:
        class_: `small` for narrow ones.
    """
    if len(drawings) == 1 and not class_:
        return drawings[0]  # it may be as wide as the page; a narrow one would be enlarged
    return Markup(f'<div class="{f"plots {class_}".strip()}">{"".join(drawings)}</div>')
