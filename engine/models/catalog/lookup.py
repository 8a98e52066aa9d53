"""The catalogue: what a slug means. Its rows are in `engine.models.catalog.families`."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.errors import ModelError
from engine.models.backbones import architecture_cache as known
from engine.models.catalog import slugs, suggest
from engine.models.catalog.entry import Row, Variant
from engine.models.catalog.families import ROWS
from engine.models.checkpoints import sources
from engine.models.checkpoints.checkpoint_cache import Published
from engine.recipes import Recipe
from stores.limits import check_seed


@dataclass(frozen=True)
class ModelSpec:
    """What a slug means, completely: two equal specs give equal features.

    Attributes:
        slug: as the user wrote it, e.g. `torchvision/resnet18`.
        architecture: canonical name, e.g. `torchvision/resnet18`; see `architectures.build`.
        weights_source: where the weights are from, in words.
        weights_path: the weights file; None for seeded weights.
        weights_sha256: hex SHA-256 of the file; for seeded weights of the tensors (`weights.state_sha256`).
        recipe: the preprocessing that belongs to the weights.
        dim: length of the feature.
        layer: `gap`, `cls` where the feature is a class token, `mean` where it is a mean over patch tokens.
        notes: what exactly the feature is; licence or paper.
        seed: of seeded weights, else None.
    """

    slug: str
    architecture: str
    weights_source: str
    weights_path: Path | None
    weights_sha256: str
    recipe: Recipe
    dim: int
    layer: str
    notes: str = ""
    seed: int | None = None


@dataclass(frozen=True)
class Found:
    """A slug's row, variant (one that changes nothing, for a plain slug) and canonical architecture."""

    row: Row
    variant: Variant
    architecture: str

    @property
    def recipe(self) -> Recipe:
        recipe = self.variant.recipe or self.row.recipe
        return recipe if isinstance(recipe, Recipe) else recipe(self.architecture)

    @property
    def notes(self) -> str:
        return "; ".join(n for n in (self.row.notes, self.variant.notes) if n)


def find(slug: str) -> Found:
    """What a slug, perhaps with `+VARIANT`, stands for; reads and fetches nothing.

    Raises:
        ModelError: no row has this slug, or the row no such variant.
    """
    plain, plus, chosen = slug.partition("+")
    for row in ROWS:
        name = row.name_in(plain)
        if name is None or not (name or "NAME" not in row.slug):
            continue
        variants = {v.name: v for v in row.variants} | ({} if plus else {"": Variant("")})
        if chosen not in variants:
            raise ModelError(
                f"Model {slug!r}",
                f"{row.slug} has " + (", ".join(f"+{v}" for v in variants) or "no variants"),
                "choose one of these, or leave the plus sign out",
            )
        variant = variants[chosen]
        architecture = row.architecture.format(name=name)
        return Found(row, variant, architecture + (f"+{variant.modifier}" if variant.modifier else ""))
    raise _unknown(slug)


def _unknown(slug: str) -> ModelError:
    near = slugs.nearest(slug, ROWS)
    return ModelError(
        f"Model {slug!r}",
        "It is one of " + ", ".join(row.slug for row in ROWS),
        (f"write {suggest.one_of(near)}, or choose another" if near else "choose one")
        + "; `embank models list` shows them",
    )


def published(slug: str) -> tuple[Published, str]:
    """The published file of a slug, and the architecture that it is converted for.

    Raises:
        ModelError: the slug's weights are not fetched this way.
    """
    found = find(slug)
    if not isinstance(found.row.source, Published):
        raise ModelError(
            f"Model {slug!r}",
            f"Its weights are {found.row.source.label}; there is nothing to fetch or convert",
            "embed with it as it is",
        )
    return found.row.source, found.row.architecture


def resolve(
    slug: str, *, weights: Path | None = None, recipe: Recipe | None = None, seed: int = 0
) -> ModelSpec:
    """Turn a slug into facts. torchvision's and timm's published weights are fetched into their libraries'
    caches where they are not there yet; the catalogue's own must have been fetched (`embank models fetch`).

    Args:
        slug: see `engine.models.catalog.families`, perhaps with `+VARIANT`.
        weights: a state dict of this architecture (PyTorch file or `.safetensors`) instead of the row's.
        recipe: preprocessing instead of the row's.
        seed: for untrained controls.

    Raises:
        ModelError: unknown slug or architecture, or a missing package.
        WeightsError: the weights are missing, damaged, or cannot be fetched.
    """
    check_seed(seed)
    found = find(slug)
    row = found.row
    if weights is not None and not row.takes_file:
        raise ModelError(
            f"{slug} with --weights {weights.name}", "Its weights are drawn, not read", "use torchvision/NAME"
        )
    source = row.source if weights is None else sources.OwnFile(weights)
    own = found.notes if weights is None else found.variant.notes
    return _spec(slug, found, recipe, own, lambda: source.find(found.architecture, seed))


def _spec(
    slug: str, found: Found, recipe: Recipe | None, own: str, find_weights: Callable[[], sources.Found]
) -> ModelSpec:
    recipe = recipe or found.recipe
    layer, notes = known.layer(found.architecture)
    dim = known.dimension(found.architecture, recipe.side)
    there = find_weights()
    return ModelSpec(
        slug,
        found.architecture,
        there.text,
        there.path,
        there.sha256,
        recipe,
        dim,
        layer,
        "; ".join(n for n in (own, notes) if n),
        there.seed,
    )


def describe(slug: str, *, weights: Path | None = None) -> dict[str, Any]:
    """Everything known of a model, its weights present or not: JSON types and paths. Fetches nothing.

    Weights that this machine does not have are None in `weights_path` and `weights_sha256`.

    Raises:
        ModelError: as `resolve`.
        WeightsError: weights that are here are damaged, or `weights` cannot be read.
    """
    found = find(slug)
    source = found.row.source
    if weights is not None:
        spec = resolve(slug, weights=weights)
    else:
        there = source.here(found.architecture, 0)
        absent = sources.Found(_absent(source), "")
        spec = _spec(slug, found, None, found.notes, lambda: there or absent)
    told = {**vars(spec), "recipe": spec.recipe.to_dict()}
    told["weights_sha256"] = spec.weights_sha256 or None
    told["variants"] = {v.name: v.notes for v in found.row.variants}
    facts = asdict(found.row.facts)
    return {**told, **facts, "source": source.facts() if isinstance(source, Published) else source.label}


def _absent(source: sources.Source) -> str:
    """Where weights are from that are not here."""
    return f"{source.label}; not here" + ("" if source.present() == "no" else f", fetched {source.present()}")


def catalogue() -> list[dict[str, str]]:
    """The rows for display: slug, variants, architecture, weights, whether they are present, notes. Fetches
    nothing."""
    return [
        {
            "slug": row.slug,
            "variants": " ".join(f"+{v.name}" for v in row.variants),
            "architecture": row.architecture.format(name="NAME"),
            "weights": row.source.label,
            "present": row.source.present(),
            "notes": row.notes,
        }
        for row in ROWS
    ]
