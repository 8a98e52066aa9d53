"""Drawing text on pictures with Pillow, wrapped into lines and cut to fit."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import ImageDraw

#: Size of the font, and distance between lines, in pixels.
SIZE, LINE = 13, 17
#: Characters after which a line is preferably broken, if one is in its second half.
_BREAKS = frozenset(" /_-")


def font(size: int = SIZE) -> Any:
    """Return Pillow's built-in font, which every machine has."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


def wrapped(text: str, room: float, length: Callable[[str], float], most: int = 12) -> list[str]:
    """Break a text into lines that fit; if they are more than `most`, the last one ends in an ellipsis.

    Args:
        text: to break.
        room: length of a line.
        length: function from a text to its length, in the same unit; must not decrease as the text grows.
        most: number of lines.
    """
    lines: list[str] = []
    remaining = printable(text[: most * int(max(room, 1)) + 1])  # every character is at least a pixel wide
    while remaining and len(lines) < most:
        count = _fitting(remaining, room, length)
        if count < len(remaining):
            breaks = [i + 1 for i in range(count // 2, count) if remaining[i] in _BREAKS]
            count = breaks[-1] if breaks else count
        lines.append(remaining[:count].rstrip(" "))
        remaining = remaining[count:].lstrip(" ")
    if remaining:
        lines[-1] = lines[-1][: max(0, _fitting(lines[-1], room - length("…"), length))] + "…"
    return lines or [""]


def printable(text: str) -> str:
    """Replace characters that cannot be drawn, such as line ends and direction marks, by `?`."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _fitting(text: str, room: float, length: Callable[[str], float]) -> int:
    """Return the number of characters that fit, at least one, by bisection."""
    fitting, too_many = 1, min(len(text), int(max(room, 1))) + 1
    while too_many - fitting > 1:
        middle = (fitting + too_many) // 2
        if length(text[:middle]) <= room:
            fitting = middle
        else:
            too_many = middle
    return fitting


def lines_of(draw: "ImageDraw.ImageDraw", texts: Sequence[str], room: int) -> list[str]:
    """Break texts into lines that fit into `room` pixels."""
    text_font = font()
    return [
        line for text in texts for line in wrapped(text, room, lambda part: draw.textlength(part, text_font))
    ]


def write(
    draw: "ImageDraw.ImageDraw", x: int, y: int, lines: Sequence[str], colour: str, line: int = LINE
) -> None:
    """Draw lines below each other, `line` pixels apart."""
    text_font = font()
    for i, text in enumerate(lines):
        draw.text((x, y + i * line), text, fill=colour, font=text_font)


def measure() -> "ImageDraw.ImageDraw":
    """Return a drawing context that measures text before there is a picture to draw on."""
    from PIL import Image, ImageDraw

    return ImageDraw.Draw(Image.new("RGB", (1, 1)))
