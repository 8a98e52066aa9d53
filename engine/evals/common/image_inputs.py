"""Images of a bank or a manifest, a model, and the folder for what is made of them."""

from dataclasses import dataclass
from pathlib import Path

from engine.decode.source import ImageSource
from engine.embed.restore import images_listed, images_of, spec_of
from engine.errors import ModelError, Refused
from engine.evals.common.features import Source
from engine.models import ModelSpec, resolve
from engine.models.catalog.lookup import find
from engine.recipes import Recipe
from stores.backends import files
from stores.backends.location import Place, place
from stores.bank.feature_info import FeatureInfo
from stores.bank.layout import MANIFEST
from stores.bank.names import Roster
from stores.bank.reader import Bank
from stores.manifest.manifest import Manifest


@dataclass(frozen=True)
class Images:
    """Images and a model.

    Attributes:
        manifest: the images.
        source: their files.
        spec: the model.
        title: the name shown to users: in a bank the title of its feature, else the slug.
        home: folder for what is made of them, and records: the bank, or one of the user's choice.
        feature: full name of the bank's feature that the model made; else the slug.
        key: digest of what that feature depends on; None where there is none.
        manifest_file: SHA-256 of the bank's manifest; "" where there is no bank.
    """

    manifest: Manifest
    source: ImageSource
    spec: ModelSpec
    home: Place
    title: str
    feature: str
    key: str | None = None
    manifest_file: str = ""


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
        weights, recipe, seed: as `models.resolve` takes them, each instead of the bank's or the catalogue's.
        root: folder of the images, where they have moved; see `engine.embed.restore`.
        allow_outside: accept paths and links that lead out of the root.
        home: where to keep what is made of them, and records; needed with a manifest.

    Raises:
        Refused: no bank or manifest there, no images where they should be, no place to keep
            what is made of them, or weights that are not the bank's.
    """
    where = place(path)
    local = files.local_path(where)
    if local is None or local.is_dir():
        bank = Bank.open(where)
        spec, info, title = _of_bank(bank, model, weights, recipe, seed)
        source = images_of(bank, info.name if info else None, root=root, allow_outside=allow_outside)
        feature, key = (info.name, info.key.digest) if info else (spec.slug, None)
        manifest_file = bank.files[MANIFEST]
        return Images(bank.manifest(), source, spec, bank.path, title, feature, key, manifest_file)
    manifest = Manifest.read(local, root=root, allow_outside=allow_outside)
    source = images_listed(manifest, allow_outside=allow_outside)
    spec = resolve(model, weights=weights, recipe=recipe, seed=seed)
    return Images(manifest, source, spec, _folder(local, home), spec.slug, spec.slug)


def images_of_feature(source: Source) -> Images:
    """Take the images and the model of a bank's feature.

    Raises:
        Refused: as `engine.embed.restore.images_of` and `spec_of`.
    """
    bank, feature = source.bank, source.features
    spec, pictures = spec_of(bank, feature.name), images_of(bank, feature.name)
    title, manifest_file = feature.title, source.manifest_file
    return Images(bank.manifest(), pictures, spec, bank.path, title, feature.name, source.key, manifest_file)


def _folder(manifest: Path, home: Path | None) -> Path:
    if home is None:
        raise Refused(
            f"manifest {manifest} without a folder for the maps",
            "Maps of a bank are kept in it, those of a manifest in a folder of your choice",
            "give the folder with -o DIR",
        )
    return home


def _of_bank(
    bank: Bank, model: str, weights: Path | None, recipe: Recipe | None, seed: int
) -> tuple[ModelSpec, FeatureInfo | None, str]:
    """Resolve the model, the bank's feature that was made with its weights (or None), and a title.

    A weights file that is the bank's own has only moved: the feature's preprocessing stays.
    """
    infos = _infos(bank, model)
    slug = infos[0].key.model if infos else model
    if weights is not None:
        spec = resolve(slug, weights=weights, recipe=recipe, seed=seed)
        infos = [i for i in infos if i.key.weights == spec.weights_sha256]
        if not infos:
            return spec, None, spec.slug
    if not infos:
        spec = resolve(slug, recipe=recipe, seed=seed)
        return spec, None, spec.slug
    if len({(i.key.weights, None if recipe else i.key.recipe) for i in infos}) > 1:
        roster, names = Roster.of(bank.path), {i.name for i in infos}
        raise roster.ambiguous(model, [entry for entry in roster.entries if entry.feature in names])
    spec = spec_of(bank, infos[0].name, weights=weights, recipe=recipe)
    return spec, infos[0], infos[0].title if len(infos) == 1 else spec.slug


def _infos(bank: Bank, model: str) -> list[FeatureInfo]:
    """Find the finished features that a word fits; the beginning of one only if it is no slug itself."""
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
