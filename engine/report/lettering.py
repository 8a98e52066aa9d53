"""Text on pictures drawn with Pillow: cut, or broken into lines, where it ceases to fit."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import ImageDraw

#: Pixels of a letter's height, and from line to line.
SIZE, LINE = 13, 17
#: A line is broken after one of these, if one comes late enough in it.
_BREAKS = frozenset(" /_-")


def font(size: int = SIZE) -> Any:
    """Pillow's own font, which every machine has."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


def wrapped(text: str, room: float, length: Callable[[str], float], most: int = 12) -> list[str]:
    """Break a text into lines that fit; beyond `most` lines the last one ends in an ellipsis.

    Args:
        room: that a line has.
        length: of a text, in the same unit; not smaller for a longer text.
    """
    lines: list[str] = []
    rest = printable(text[: most * int(max(room, 1)) + 1])  # a letter is a pixel wide at least
    while rest and len(lines) < most:
        fits = _fitting(rest, room, length)
        if fits < len(rest):
            late = [at + 1 for at in range(fits // 2, fits) if rest[at] in _BREAKS]
            fits = late[-1] if late else fits
        lines.append(rest[:fits].rstrip(" "))
        rest = rest[fits:].lstrip(" ")
    if rest:
        lines[-1] = lines[-1][: max(0, _fitting(lines[-1], room - length("…"), length))] + "…"
    return lines or [""]


def printable(text: str) -> str:
    """The text without what a picture cannot show, such as line ends and marks of direction."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _fitting(text: str, room: float, length: Callable[[str], float]) -> int:
    """How many characters fit; at least one."""
    fits, over = 1, min(len(text), int(max(room, 1))) + 1
    while over - fits > 1:
        middle = (fits + over) // 2
        if length(text[:middle]) <= room:
            fits = middle
        else:
            over = middle
    return fits


def lines_of(draw: "ImageDraw.ImageDraw", texts: Sequence[str], room: int) -> list[str]:
    """Texts, each broken into lines that fit into `room` pixels."""
    letters = font()
    return [
        line for text in texts for line in wrapped(text, room, lambda part: draw.textlength(part, letters))
    ]


def write(
    draw: "ImageDraw.ImageDraw", x: int, y: int, lines: Sequence[str], colour: str, line: int = LINE
) -> None:
    """Draw lines below each other."""
    letters = font()
    for at, text in enumerate(lines):
        draw.text((x, y + at * line), text, fill=colour, font=letters)


def measure() -> "ImageDraw.ImageDraw":
    """Something that knows how long texts are, before there is a picture to draw on."""
    from PIL import Image, ImageDraw

    return ImageDraw.Draw(Image.new("RGB", (1, 1)))
