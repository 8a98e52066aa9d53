"""What an adapter is: the facts of a data set, and a function from a downloaded folder to its manifest."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from stores.manifest.manifest import Manifest

#: `default` is correct: splits by patient, stated label rules. `as-published` repeats the study's rules, with
#: its faults.
Mode = Literal["default", "as-published"]
MODES: tuple[Mode, ...] = ("default", "as-published")


@dataclass(frozen=True)
class Option:
    """A choice that an adapter leaves to the user, given as `-O NAME=VALUE` on the command line.

    Attributes:
        name: also the name of the keyword of `index`.
        default: the value when none is given; the same as in the signature of `index`.
        help: what it decides, one line.
        values: the values there are; empty if any text will do.
    """

    name: str
    default: str
    help: str
    values: tuple[str, ...] = ()


#: Choices that several adapters leave.
SEED = Option("seed", "0", "of the split (default mode)")
EVALUATION = Option(
    "evaluation",
    "linear",
    "as-published: few-shot lists its pool only, linear everything",
    ("linear", "few-shot"),
)


@dataclass(frozen=True)
class Facts:
    """What a reader must know about a data set before believing a number made from it.

    Attributes:
        name: as on the command line.
        title: one line.
        source: where it comes from, and the paper or page that describes it.
        licence: as its source states it.
        images: number of images; 0 if it is the user's own.
        classes: label -> number of images in `default` mode without options; empty if it is the user's own.
        groups: what the column `group` holds.
        caveats: whole sentences on what the numbers cannot mean, and on what goes wrong easily.
        embedded: the images come with an installed package, so `index` makes them.
        download: steps from nothing to a folder that `index` takes.
        layout: lines that show this folder.
        label: the label rule of each mode.
        splits: where the splits of each mode come from.
        checked: how the facts are known: computed from the label table, stated by the publisher, or neither.
        modes: the modes there are.
        options: the user's choices.
    """

    name: str
    title: str
    source: str
    licence: str
    images: int
    classes: dict[str, int]
    groups: str
    caveats: tuple[str, ...]
    embedded: bool = False
    download: tuple[str, ...] = ()
    layout: tuple[str, ...] = ()
    label: str = ""
    splits: str = ""
    checked: str = ""
    modes: tuple[Mode, ...] = ("default",)
    options: tuple[Option, ...] = ()


class Dataset(Protocol):
    """A module of `engine.datasets`; `engine.datasets.build` calls it and checks names and counts."""

    @property
    def facts(self) -> Facts: ...

    def index(self, root: Path, mode: Mode = "default", **options: str) -> "Manifest":
        """List the images of the data set below `root`, with all that its own files say about them.

        No image is opened (an embedded set writes its images first, and leaves right ones alone). Uris are
        relative to `root`. What was left out, and why, stands in the manifest's notes.

        Args:
            root: the downloaded folder.
            mode: one of `facts.modes`.
            options: values for names in `facts.options`, already checked against their `values`.

        Raises:
            Refused: a file or folder is missing or is not what it should be; names it, with the remedy.
            MachineFault: the disk is full or fails.
        """
        ...

    def expected(self, mode: Mode, **options: str) -> Mapping[str, int]:
        """Label -> number of images that the whole data set gives under these rules; `""` for unlabelled.

        A module may leave this function out; then it is `facts.classes`. Empty where nobody knows.
        """
        ...
