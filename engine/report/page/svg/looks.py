"""How series are told apart: a colour, a shape and a dash each, by classes of `charts.css`."""

from dataclasses import dataclass

#: Series with a colour of their own; further ones are muted and named at their ends.
COLOURS = 8

#: Paths of shapes about the origin, relative, about 7 units wide.
SHAPES = (
    "m-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0-6.4 0z",  # circle
    "m-2.9-2.9h5.8v5.8h-5.8z",  # square
    "m0-3.9l3.7 6.6h-7.4z",  # triangle
    "m0-4l4 4l-4 4l-4-4z",  # diamond
    "m0 3.9l-3.7-6.6h7.4z",  # triangle downwards
    "m-1.2-3.6h2.4v2.4h2.4v2.4h-2.4v2.4h-2.4v-2.4h-2.4v-2.4h2.4z",  # plus
    "m-3.6-3.6l1.7 0l1.9 1.9l1.9-1.9l1.7 0l0 1.7l-1.9 1.9l1.9 1.9l0 1.7l-1.7 0l-1.9-1.9l-1.9 1.9l-1.7 0"
    "l0-1.7l1.9-1.9l-1.9-1.9z",  # cross
    "m-3.7 0l1.9-3.2h3.6l1.9 3.2l-1.9 3.2h-3.6z",  # hexagon
)


@dataclass(frozen=True)
class Look:
    """How a series is drawn.

    Attributes:
        place: 0 to `COLOURS` - 1; None for a muted one.
        hollow: whether its points are filled with the background's colour.
        dash: class that replaces its own dash, e.g. `dashed` or `solid`; "" for its own.
    """

    place: int | None = 0
    hollow: bool = False
    dash: str = ""

    @property
    def colour(self) -> str:
        """Class of its colour."""
        return "muted" if self.place is None else f"series-{self.place % COLOURS + 1}"

    @property
    def shape(self) -> str:
        """Path of its points."""
        return SHAPES[0 if self.place is None else self.place % len(SHAPES)]


def looks_of(names: "tuple[str, ...] | list[str]") -> dict[str, Look]:
    """Return a look for each name, the same wherever the names are the same; beyond `COLOURS` muted ones."""
    return {name: Look(place if place < COLOURS else None) for place, name in enumerate(dict.fromkeys(names))}
