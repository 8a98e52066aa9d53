"""What a data set is: facts that stand in the report, and a function that gives its manifest."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from stores.manifest import Manifest


@dataclass(frozen=True)
class Facts:
    """What a reader must know about a data set before believing a number made from it.

    Attributes:
        name: as on the command line.
        title: one line.
        source: where it comes from, and the paper or page that describes it.
        licence: as its source states it.
        images: number of images.
        classes: label -> number of images.
        groups: what the column `group` holds.
        caveats: whole sentences on what the numbers cannot mean.
        embedded: the images come with an installed package, so `write` makes them.
    """

    name: str
    title: str
    source: str
    licence: str
    images: int
    classes: dict[str, int]
    groups: str
    caveats: tuple[str, ...]
    embedded: bool


class Dataset(Protocol):
    """A module of `engine.datasets`."""

    @property
    def facts(self) -> Facts: ...

    def write(self, directory: Path) -> "Manifest":
        """Give the manifest of the data set below `directory`; embedded sets write their images there first.

        Files that are there already and right are left alone.

        Raises:
            Refused: the package that ships the images is missing, or the directory cannot be written to.
            MachineFault: the disk is full or fails.
        """
        ...
