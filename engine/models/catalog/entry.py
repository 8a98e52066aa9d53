"""What a row of the catalogue says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from engine.models.backbones import architecture_cache as known
from engine.models.checkpoints import sources
from engine.recipes import Recipe


@dataclass(frozen=True)
class Facts:
    """What is known of a model beside what it computes.

    A source begins with its status: confirmed (read in the original project's own code or page), inferred
    (follows from loading code that works on the file), unverified (no source was at hand) or unknown.

    Attributes:
        paper: link.
        licence: of code and weights, as far as known.
        top1: linear evaluation (or supervised accuracy) on ImageNet, percent; None where there is none.
        top1_note: whose number that is, and others.
        sources: fact -> where it is from, beginning with its status.
    """

    paper: str = ""
    licence: str = ""
    top1: float | None = None
    top1_note: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Variant:
    """Another way to use the same weights, `SLUG+NAME`; it has a key of its own.

    Attributes:
        name: after the plus sign.
        modifier: of the architecture, see `engine.models.backbones.modifiers`; empty for none.
        recipe: another preprocessing than the row's; None for the same.
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
        slug: the whole slug, or a namespace such as `torchvision/NAME`.
        architecture: canonical architecture; `{name}` stands for the part after the namespace.
        source: where the weights are from unless the user brings a file.
        recipe: the weights' preprocessing, or a function from the architecture to it.
        notes: licence, paper, feature.
        takes_file: whether `--weights FILE` makes sense.
        variants: other ways to use it.
        facts: see `Facts`.
    """

    slug: str
    architecture: str
    source: sources.Source
    recipe: Recipe | Callable[[str], Recipe] = known.default_recipe
    notes: str = ""
    takes_file: bool = True
    variants: tuple[Variant, ...] = ()
    facts: Facts = field(default_factory=Facts)

    def name_in(self, slug: str) -> str | None:
        """The part of the slug that `{name}` stands for; None where the slug is another row's."""
        namespace, _, rest = self.slug.rpartition("/")
        if rest != "NAME":
            return "" if slug == self.slug else None
        return slug.removeprefix(namespace + "/") if slug.startswith(namespace + "/") else None


#: How a transformer's tokens become one feature.
POOLINGS = (
    Variant("cls", "cls", notes="class token after the last norm"),
    Variant("mean", "mean", notes="mean of the patch tokens after the last norm"),
)
