"""What saliency looks at: the images of a bank or a manifest, a model, and where to keep the maps."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.decode.source import ImageSource
from engine.errors import ModelError, Refused
from engine.models import ModelSpec, resolve
from engine.models.catalog import find
from engine.recipes import Recipe
from stores.manifest import Manifest
from stores.names import Roster
from stores.places import ObjectPath, Place, place
from stores.read import Bank, FeatureInfo


@dataclass(frozen=True)
class Images:
    """Images and a model.

    Attributes:
        manifest: the images.
        source: their files.
        spec: the model.
        title: what people call it: in a bank the title of its feature, else the slug.
        home: folder for maps and records: the bank, or one of the user's choice.
    """

    manifest: Manifest
    source: ImageSource
    spec: ModelSpec
    home: Place
    title: str


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
        model: a slug, or a name of a bank's feature: in a bank that has features of it, the very weights and
            preprocessing of these.
        weights, recipe, seed: as `models.resolve` takes them, instead of the bank's or the catalogue's.
        root: folder of the images, where they have moved.
        allow_outside: accept paths and links that lead out of the root.
        home: where to keep maps and records; needed with a manifest.

    Raises:
        Refused: no bank or manifest there, no place to keep maps, or weights that are not the bank's.
    """
    where = place(path)
    known = None
    if isinstance(where, ObjectPath) or where.is_dir():
        bank = Bank.open(where)
        manifest, outside = bank.manifest(), _outside(bank) or allow_outside
        known = _of_bank(bank, model) if weights is None and recipe is None else None
        kept: Place = bank.path
    else:
        manifest, outside = Manifest.read(where, root=root, allow_outside=allow_outside), allow_outside
        kept = _folder(where, home)
    source = ImageSource(root or manifest.root, manifest.uris, sha256=manifest.sha256s, allow_outside=outside)
    if known is None:
        spec = resolve(model, weights=weights, recipe=recipe, seed=seed)
        known = spec, spec.slug
    return Images(manifest, source, known[0], kept, known[1])


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
    made = [bank.provenance(info.name) for info in bank.list() if info.sealed]
    return any(bool(each["options"]["allow_outside"]) for each in made)


def _of_bank(bank: Bank, model: str) -> tuple[ModelSpec, str] | None:
    """The model as the bank's features were made by it, and its title; None if it has none of this model."""
    infos = _infos(bank, model)
    if not infos:
        return None
    if len({(i.key.weights, i.key.recipe) for i in infos}) > 1:
        roster, names = Roster.of(bank.path), {i.name for i in infos}
        raise roster.ambiguous(model, [entry for entry in roster.entries if entry.feature in names])
    made: dict[str, Any] = bank.provenance(infos[0].name)
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
    return spec, infos[0].title if len(infos) == 1 else spec.slug


def _infos(bank: Bank, model: str) -> list[FeatureInfo]:
    """The finished features that a word fits; the beginning of one only if it is no slug itself."""
    infos = [info for info in bank.list() if info.sealed]
    exact = [info for info in infos if model in (info.name, info.title, info.key.model)]
    if exact or _is_slug(model):
        return exact
    wanted = bank.select(model)
    return [info for info in infos if info.name in wanted]


def _is_slug(word: str) -> bool:
    try:
        find(word)
    except ModelError:
        return False
    return True
