"""The interface of adapters: facts of a data set, and a function from a downloaded folder to its manifest."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from stores.manifest.manifest import Manifest

#: `default` is correct: splits by patient, stated label rules. `as-published` repeats the study's rules, with
#: their faults.
Mode = Literal["default", "as-published"]
MODES: tuple[Mode, ...] = ("default", "as-published")


@dataclass(frozen=True)
class Option:
    """A choice that an adapter leaves to the user, given as `-O NAME=VALUE` on the command line.

    Attributes:
        name: of the option, and of the keyword argument of `index`.
        default: the same as in the signature of `index`.
        help: what it decides, in one line.
        values: allowed values; empty if any text is allowed.
    """

    name: str
    default: str
    help: str
    values: tuple[str, ...] = ()


#: Options that several adapters have.
SEED = Option("seed", "0", "of the split (default mode)")
EVALUATION = Option(
    "evaluation",
    "linear",
    "as-published: few-shot lists its pool only, linear everything",
    ("linear", "few-shot"),
)


@dataclass(frozen=True)
class Facts:
    """What one must know about a data set before trusting a number computed from it.

    Attributes:
        name: as on the command line.
        title: one line.
        source: its origin, and the paper or page that describes it.
        licence: as its source states it.
        images: number of images; 0 if it is the user's own.
        classes: label -> number of images in `default` mode without options; empty if it is the user's own.
        groups: meaning of the column `group`.
        caveats: full sentences on what the numbers cannot mean, and on common mistakes.
        embedded: the images come with an installed package, and `index` writes them.
        download: steps to obtain the folder that `index` takes.
        layout: lines that show this folder.
        label: the label rule of each mode.
        splits: the origin of each mode's splits.
        checked: how the facts are known: computed from the label table, stated by the publisher, or neither.
        modes: supported modes.
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
    def facts(self) -> Facts:
        """The facts about the data set."""
        ...

    def index(self, root: Path, mode: Mode = "default", **options: str) -> "Manifest":
        """List the images of the data set below `root`, with everything that its own files say about them.

        No image is opened (an embedded set writes its images first, unless they are there already). Uris are
        relative to `root`. The manifest's notes say what was left out, and why.

        Args:
            root: the downloaded folder.
            mode: one of `facts.modes`.
            options: values for names in `facts.options`, already checked against their `values`.

        Raises:
            Refused: a file or folder is missing or malformed; it is named, with the remedy.
            MachineFault: the disk is full or fails.
        """
        ...

    def expected(self, mode: Mode, **options: str) -> Mapping[str, int]:
        """Return label -> number of images of the complete data set under these rules, `""` for unlabelled.

        Empty if the numbers are unknown. A module without this function has those of `facts.classes`.
        """
        ...
