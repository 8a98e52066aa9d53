"""The entries of the catalogue: rows, variants and facts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from engine.models.backbones import architecture_cache
from engine.models.checkpoints import sources
from engine.recipes import Recipe


@dataclass(frozen=True)
class Facts:
    """Facts about a model that have no influence on its features.

    A source begins with its status: confirmed (read in the original project's own code or page), inferred
    (follows from code that loads the file successfully), unverified (no source was available) or unknown.

    Attributes:
        paper: link.
        licence: of code and weights, as far as known.
        commercial_use: whether `licence` permits it; None where it says nothing definite.
        top1: ImageNet accuracy by linear evaluation (or of the supervised network), percent; None if unknown.
        top1_note: whose number it is, and other published ones.
        sources: fact -> its source, beginning with the status.
    """

    paper: str = ""
    licence: str = ""
    top1: float | None = None
    top1_note: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    commercial_use: bool | None = None


@dataclass(frozen=True)
class Variant:
    """Another use of the same weights, `SLUG+NAME`, with its own feature key.

    Attributes:
        name: after the plus sign.
        modifier: of the architecture, see `engine.models.backbones.modifiers`; empty for none.
        recipe: preprocessing instead of the row's; None for the row's.
        notes: what differs.
    """

    name: str
    modifier: str = ""
    recipe: Recipe | None = None
    notes: str = ""


@dataclass(frozen=True)
class Row:
    """One model, or one namespace of models.

    Attributes:
        slug: a complete slug, or a namespace such as `torchvision/NAME`.
        architecture: canonical architecture; `{name}` stands for the part after the namespace.
        source: of the weights, unless the user gives a file.
        recipe: the weights' preprocessing, or a function from the architecture to it.
        notes: licence, paper, feature.
        takes_file: whether `--weights FILE` is accepted.
        variants: other uses of the weights.
        facts: paper, licence, accuracy and sources.
    """

    slug: str
    architecture: str
    source: sources.Source
    recipe: Recipe | Callable[[str], Recipe] = architecture_cache.default_recipe
    notes: str = ""
    takes_file: bool = True
    variants: tuple[Variant, ...] = ()
    facts: Facts = field(default_factory=Facts)

    def name_in(self, slug: str) -> str | None:
        """Return the part of the slug that `{name}` stands for; None if the slug is not of this row."""
        namespace, _, rest = self.slug.rpartition("/")
        if rest != "NAME":
            return "" if slug == self.slug else None
        return slug.removeprefix(namespace + "/") if slug.startswith(namespace + "/") else None


#: Variants of convolutional networks that have the architectures of other checkpoints.
PADDINGS = (
    Variant("same", "same", notes="TensorFlow's SAME padding in strided convolutions and max-pools"),
    Variant("samepool", "samepool", notes="TensorFlow's SAME padding in max-pools alone"),
    Variant("grey", "grey", notes="first convolution of one channel, the mean of the three"),
)
#: Variants of transformers: how the tokens become one feature.
POOLINGS = (
    Variant("cls", "cls", notes="class token after the last norm"),
    Variant("mean", "mean", notes="mean of the patch tokens after the last norm"),
)
