"""Columns by which test images are divided into strata."""

import math
from dataclasses import dataclass
from itertools import pairwise

from engine.errors import Refused


@dataclass(frozen=True)
class Stratify:
    """A column by which the test images are divided.

    Attributes:
        column: of the manifest.
        edges: ascending, that divide a column of numbers; none takes each of its texts as a stratum.

    Raises:
        Refused: edges that are not ascending numbers.
    """

    column: str
    edges: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        pairs = pairwise(self.edges)
        if not self.column or not all(map(math.isfinite, self.edges)) or any(a >= b for a, b in pairs):
            raise Refused(
                f"strata {self.word!r}",
                "Edges are ascending numbers",
                "write for instance --strata age:40,60",
            )

    @classmethod
    def parse(cls, word: str) -> "Stratify":
        """Read `COLUMN` or `COLUMN:EDGE,EDGE,...`. Raises Refused for edges in another order."""
        column, _, edges = word.rpartition(":")
        try:
            numbers = tuple(map(float, edges.split(",")))
        except ValueError:
            numbers = ()
        return cls(column, numbers) if column and numbers else cls(word)

    @property
    def word(self) -> str:
        """The text that it is read from."""
        return f"{self.column}:{','.join(f'{edge:g}' for edge in self.edges)}" if self.edges else self.column

    @property
    def names(self) -> tuple[str, ...]:
        """What the strata between edges are called; the lower edge belongs to its stratum."""
        words = [f"{edge:g}" for edge in self.edges]
        between = [f"{low} to {high}" for low, high in pairwise(words)]
        return (f"below {words[0]}", *between, f"{words[-1]} or more") if words else ()


def check_strata(strata: tuple[Stratify, ...]) -> None:
    """Refuse a column of strata that is named twice. Raises Refused."""
    columns = [by.column for by in strata]
    if len(set(columns)) < len(columns):
        raise Refused(f"strata {', '.join(columns)}", "Each column is named once", "drop the repetition")
