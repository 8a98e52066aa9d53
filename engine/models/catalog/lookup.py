"""Looking up slugs in the catalogue, whose rows are in `engine.models.catalog.families`."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.errors import ModelError, Refused, WeightsError
from engine.models.backbones import architecture_cache
from engine.models.catalog import slugs, suggest
from engine.models.catalog.entry import Row, Variant
from engine.models.catalog.families import ROWS
from engine.models.checkpoints import sources
from engine.models.checkpoints.checkpoint_cache import Published
from engine.models.checkpoints.lineage import Lineage, lineage_of
from engine.recipes import Recipe
from stores.limits import check_seed


@dataclass(frozen=True)
class ModelSpec:
    """The complete specification of a model: two equal ones give equal features.

    Attributes:
        slug: as the user wrote it, e.g. `torchvision/resnet18`.
        architecture: canonical name, e.g. `torchvision/resnet18`; see `architectures.build`.
        weights_source: origin of the weights, in words.
        weights_path: the weights file; None for seeded weights.
        weights_sha256: hex SHA-256 of the file; for seeded weights of the tensors (`weights.state_sha256`).
        recipe: the preprocessing that belongs to the weights.
        dim: length of the feature.
        layer: kind of the feature: `gap`, `cls` for a class token, `mean` for a mean of patch tokens, ...
        notes: exact definition of the feature; licence or paper.
        seed: of seeded weights, else None.
        lineage: of finetuned weights, else None.
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
    lineage: Lineage | None = None


@dataclass(frozen=True)
class Entry:
    """The catalogue's entry for a slug.

    Attributes:
        row: of the slug.
        variant: the one after the plus sign; for a plain slug, one that changes nothing.
        architecture: canonical name, with the variant's modifier.
    """

    row: Row
    variant: Variant
    architecture: str

    @property
    def recipe(self) -> Recipe:
        """The preprocessing."""
        recipe = self.variant.recipe or self.row.recipe
        return recipe if isinstance(recipe, Recipe) else recipe(self.architecture)

    @property
    def notes(self) -> str:
        """The notes of row and variant."""
        return "; ".join(note for note in (self.row.notes, self.variant.notes) if note)


def find(slug: str) -> Entry:
    """Find the entry of a slug, perhaps with `+VARIANT`; reads no file and fetches nothing.

    Raises:
        ModelError: no row has this slug, or the row has no such variant.
    """
    plain, plus, variant_name = slug.partition("+")
    for row in ROWS:
        name = row.name_in(plain)
        if name is None or not (name or "NAME" not in row.slug):
            continue
        variants = {variant.name: variant for variant in row.variants} | ({} if plus else {"": Variant("")})
        if variant_name not in variants:
            raise ModelError(
                f"Model {slug!r}",
                f"{row.slug} has " + (", ".join(f"+{known}" for known in variants) or "no variants"),
                "choose one of these, or leave the plus sign out",
            )
        variant = variants[variant_name]
        architecture = row.architecture.format(name=name)
        return Entry(row, variant, architecture + (f"+{variant.modifier}" if variant.modifier else ""))
    raise _unknown(slug)


def _unknown(slug: str) -> ModelError:
    near = slugs.nearest(slug, ROWS)
    return ModelError(
        f"Model {slug!r}",
        "It is one of " + ", ".join(row.slug for row in ROWS),
        (f"write {suggest.either_of(near)}, or choose another" if near else "choose one")
        + "; `embank models list` shows them",
    )


def published(slug: str) -> tuple[Published, str]:
    """Return the published file of a slug, and the architecture that it is converted for.

    Raises:
        ModelError: the slug's weights are not fetched and converted.
    """
    entry = find(slug)
    if not isinstance(entry.row.source, Published):
        raise ModelError(
            f"Model {slug!r}",
            f"Its weights are {entry.row.source.label}; there is nothing to fetch or convert",
            "embed with it as it is",
        )
    return entry.row.source, entry.row.architecture


def resolve(
    slug: str, *, weights: Path | None = None, recipe: Recipe | None = None, seed: int = 0
) -> ModelSpec:
    """Turn a slug into the complete specification of a model.

    Weights that torchvision or timm publish are fetched into the library's cache if they are not there yet;
    those of the catalogue's own models must have been fetched before (`embank models fetch`).

    Args:
        slug: see `engine.models.catalog.families`, perhaps with `+VARIANT`.
        weights: a state dict of this architecture (PyTorch file or `.safetensors`) instead of the row's.
        recipe: preprocessing instead of the row's, and instead of that which finetuned weights name.
        seed: for untrained controls.

    Raises:
        ModelError: unknown slug or architecture, or a missing package.
        WeightsError: the weights are missing, damaged, or cannot be fetched.
    """
    check_seed(seed)
    entry = find(slug)
    row = entry.row
    if weights is not None and not row.takes_file:
        raise ModelError(
            f"{slug} with --weights {weights.name}", "Its weights are drawn, not read", "use torchvision/NAME"
        )
    source = row.source if weights is None else sources.OwnFile(weights)
    notes = entry.notes if weights is None else entry.variant.notes
    if recipe is None and weights is not None:
        recipe = _own_recipe(weights)
    return _spec(slug, entry, recipe, notes, lambda: source.find(entry.architecture, seed))


def _own_recipe(weights: Path) -> Recipe | None:
    """Return the preprocessing with which weights were finetuned; None for other weights."""
    lineage = lineage_of(weights)
    if lineage is None or not lineage.recipe:
        return None
    try:
        return Recipe.from_dict(lineage.recipe)
    except Refused as error:
        raise WeightsError(
            f"{weights} was finetuned with a preprocessing that is not known here ({error.found})",
            "Finetuned weights are used with the preprocessing that they were trained with",
            "use the version of embank that wrote the file, or give the preprocessing with --recipe",
        ) from error


def _spec(
    slug: str,
    entry: Entry,
    recipe: Recipe | None,
    notes: str,
    find_weights: Callable[[], sources.LocatedWeights],
) -> ModelSpec:
    recipe = recipe or entry.recipe
    layer, layer_notes = architecture_cache.layer(entry.architecture)
    dim = architecture_cache.dimension(entry.architecture, recipe.side)
    weights = find_weights()
    return ModelSpec(
        slug,
        entry.architecture,
        weights.text,
        weights.path,
        weights.sha256,
        recipe,
        dim,
        layer,
        "; ".join(note for note in (notes, layer_notes) if note),
        weights.seed,
        weights.lineage,
    )


def describe(slug: str, *, weights: Path | None = None) -> dict[str, Any]:
    """Return everything known of a model as JSON types and paths; fetches nothing.

    If this machine does not have the weights, `weights_path` and `weights_sha256` are None.

    Raises:
        ModelError: as `resolve`.
        WeightsError: weights in the cache are damaged, or `weights` cannot be read.
    """
    entry = find(slug)
    source = entry.row.source
    if weights is not None:
        spec = resolve(slug, weights=weights)
    else:
        cached = source.here(entry.architecture, 0)
        absent = sources.LocatedWeights(_absent(source), "")
        spec = _spec(slug, entry, None, entry.notes, lambda: cached or absent)
    return {
        **{name: value for name, value in vars(spec).items() if name != "lineage"},
        "recipe": spec.recipe.to_dict(),
        "weights_sha256": spec.weights_sha256 or None,
        "variants": {variant.name: variant.notes for variant in entry.row.variants},
        **asdict(entry.row.facts),
        "source": source.facts() if isinstance(source, Published) else source.label,
        **({"lineage": spec.lineage.to_dict()} if spec.lineage else {}),
    }


def _absent(source: sources.Source) -> str:
    """Describe the origin of weights that this machine does not have."""
    return f"{source.label}; not here" + ("" if source.present() == "no" else f", fetched {source.present()}")


def catalogue() -> list[dict[str, str]]:
    """Return the rows for display; fetches nothing.

    Each has `slug`, `variants`, `architecture`, `weights`, `present` (whether they are here) and `notes`.
    """
    return [
        {
            "slug": row.slug,
            "variants": " ".join(f"+{variant.name}" for variant in row.variants),
            "architecture": row.architecture.format(name="NAME"),
            "weights": row.source.label,
            "present": row.source.present(),
            "notes": row.notes,
        }
        for row in ROWS
    ]
