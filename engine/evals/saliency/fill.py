"""The colour of the occluding square, as it is written."""

from engine.errors import Refused


def parse_fill(text: str) -> str | tuple[int, int, int]:
    """Parse `0`, `mean`, or three bytes `R,G,B`.

    Raises:
        Refused: anything else.
    """
    if text in ("0", "mean"):
        return text
    parts = text.split(",")
    if len(parts) == 3 and all(
        part.strip().isdecimal() and len(part) < 10 and int(part) < 256 for part in parts
    ):
        red, green, blue = (int(part) for part in parts)
        return red, green, blue
    raise Refused(
        f"fill {text!r}",
        "It is 0 (zero after normalisation), mean (the image's mean colour), or R,G,B of 0 to 255",
        "choose one, for example --fill 128,128,128",
    )
