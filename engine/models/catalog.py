"""The catalogue: what a slug means. Its rows are in `engine.models.rows`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.errors import ModelError, WeightsError
from engine.models import facts as known
from engine.models import sources
from engine.models.published import Published
from engine.models.row import Row, Variant
from engine.models.rows import ROWS
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
    raise ModelError(
        f"Model {slug!r}",
        "It is one of " + ", ".join(row.slug for row in ROWS),
        "choose one; `embank models list` shows them",
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
        slug: see `engine.models.rows`, perhaps with `+VARIANT`.
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
    recipe = recipe or found.recipe
    layer, notes = known.layer(found.architecture)
    dim = known.dimension(found.architecture, recipe.side)
    source = row.source if weights is None else sources.OwnFile(weights)
    there = source.find(found.architecture, seed)
    return ModelSpec(
        slug,
        found.architecture,
        there.text,
        there.path,
        there.sha256,
        recipe,
        dim,
        layer,
        "; ".join(n for n in (found.notes if weights is None else found.variant.notes, notes) if n),
        there.seed,
    )


def describe(slug: str, *, weights: Path | None = None) -> dict[str, Any]:
    """Everything known of a model, its weights present or not: JSON types and paths.

    Raises:
        ModelError: as `resolve`.
        WeightsError: as `resolve`, except that a published file may be absent.
    """
    found = find(slug)
    source = found.row.source
    try:
        spec: dict[str, Any] = vars(resolve(slug, weights=weights))
    except WeightsError:
        if not isinstance(source, Published) or weights is not None or source.converted.exists():
            raise
        layer, _ = known.layer(found.architecture)
        recipe = found.recipe
        spec = {
            "slug": slug,
            "architecture": found.architecture,
            "weights_source": source.label,
            "weights_path": None,
            "weights_sha256": None,
            "recipe": recipe,
            "dim": known.dimension(found.architecture, recipe.side),
            "layer": layer,
            "notes": found.notes,
            "seed": None,
        }
    told = {**spec, "recipe": spec["recipe"].to_dict()}
    told["variants"] = {v.name: v.notes for v in found.row.variants}
    facts = asdict(found.row.facts)
    return {**told, **facts, "source": source.facts() if isinstance(source, Published) else source.label}


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
