"""What saliency looks at: the images of a bank or a manifest, a model, and where to keep the maps."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import provenance
from engine.decode.source import ImageSource
from engine.errors import Refused
from engine.models import ModelSpec, resolve
from engine.recipes import Recipe
from stores.manifest import Manifest
from stores.places import ObjectPath, Place, place
from stores.read import Bank


@dataclass(frozen=True)
class Images:
    """Images and a model.

    Attributes:
        manifest: the images.
        source: their files.
        spec: the model.
        home: folder for maps and records: the bank, or one of the user's choice.
    """

    manifest: Manifest
    source: ImageSource
    spec: ModelSpec
    home: Place


def open_images(
    path: Path | str,
    model: str,
    *,
    weights: Path | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
    root: Path | None = None,
    allow_outside: bool = False,
    home: Path | None = None,
) -> Images:
    """Open a bank or a manifest.

    Args:
        path: a bank's directory or URL, or a manifest's file.
        model: a slug; in a bank that has features of it, the very weights and preprocessing of these.
        weights, recipe, seed: as `models.resolve` takes them, instead of the bank's or the catalogue's.
        root: folder of the images, where they have moved.
        allow_outside: accept paths and links that lead out of the root.
        home: where to keep maps and records; needed with a manifest.

    Raises:
        Refused: no bank or manifest there, no place to keep maps, or weights that are not the bank's.
    """
    where = place(path)
    spec = None
    if isinstance(where, ObjectPath) or where.is_dir():
        bank = Bank.open(where)
        manifest, outside = bank.manifest(), _outside(bank) or allow_outside
        spec = _of_bank(bank, model) if weights is None and recipe is None else None
        kept: Place = bank.path
    else:
        manifest, outside = Manifest.read(where, root=root, allow_outside=allow_outside), allow_outside
        kept = _folder(where, home)
    source = ImageSource(root or manifest.root, manifest.uris, sha256=manifest.sha256s, allow_outside=outside)
    return Images(manifest, source, spec or resolve(model, weights=weights, recipe=recipe, seed=seed), kept)


def _folder(manifest: Path, home: Path | None) -> Path:
    if home is None:
        raise Refused(
            f"manifest {manifest} without a folder for the maps",
            "Maps of a bank are kept in it, those of a manifest in a folder of your choice",
            "give the folder with -o DIR",
        )
    home.mkdir(parents=True, exist_ok=True)
    return home


def _outside(bank: Bank) -> bool:
    """Whether the bank's features were made with leave to follow links out of the root."""
    made = [provenance.recorded(bank, info.name) for info in bank.list() if info.sealed]
    return any(bool(each["options"]["allow_outside"]) for each in made)


def _of_bank(bank: Bank, model: str) -> ModelSpec | None:
    """The model as the bank's features were made by it; None if it has none of this model."""
    infos = [i for i in bank.list() if i.sealed and model in (i.name, i.key.model)]
    if not infos:
        return None
    if len({(i.key.weights, i.key.recipe) for i in infos}) > 1:
        raise Refused(
            f"{model!r} could be any of {', '.join(i.name for i in infos)}",
            "They differ in weights or preprocessing",
            "give the full name",
        )
    made: dict[str, Any] = provenance.recorded(bank, infos[0].name)
    recorded = made["weights_path"]
    spec = resolve(
        made["model"],
        weights=Path(recorded) if recorded else None,
        recipe=Recipe.from_dict(made["recipe"]),
        seed=made["runtime"]["seed"],
    )
    if spec.weights_sha256 != infos[0].key.weights:
        raise Refused(
            f"weights {spec.weights_sha256[:12]} ({spec.weights_source})",
            f"The bank's features were made with {infos[0].key.weights[:12]}",
            "give the original file with --weights",
        )
    return spec
