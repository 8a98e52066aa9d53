"""Decode passes of a study: which models each bank lacks, how many images, how much disk and time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from engine import datasets
from engine.errors import Refused
from engine.models.catalog import lookup
from engine.recipes import Recipe, load_recipe
from engine.study.estimate import Estimate, Rates, dimension_of, pass_estimate
from engine.study.feasible import Why, counts_of, manifest_there
from engine.study.image_sets import ImageSet, image_set, image_sets
from engine.study.ledger import Ledger
from engine.study.study import Model, Study
from stores.bank.record_index import RecordEntry
from stores.json_types import JsonObject


@dataclass(frozen=True)
class Images:
    """An image set and what there is of it.

    Attributes:
        images: the set.
        bank: where its bank is or will be; there: whether it is.
        rows: number of images; None where that is unknown.
        features: models that have a finished feature in the bank.
        embedded: records of embedding in the bank.
    """

    images: ImageSet
    bank: Path
    there: bool = False
    rows: int | None = None
    features: frozenset[str] = frozenset()
    embedded: tuple[RecordEntry, ...] = ()


@dataclass(frozen=True)
class EmbedPass:
    """Models that are embedded together: of one bank and one rendering, so that images are decoded once.

    Attributes:
        dataset: name; bank: where features go.
        models: names, in the order of the study.
        images: number; 0 where it is unknown.
        bytes: that features add to the disk.
        seconds: estimate; measured: whether by rates of this study's own records.
        takes_over: the features are those of the data set's own bank, under other labels: nothing is decoded.
        reason: what has to be fetched first; "" for nothing.
        remedy: how.
    """

    dataset: str
    bank: Path
    models: tuple[str, ...]
    images: int
    bytes: int
    seconds: float
    measured: bool
    takes_over: bool = False
    reason: str = ""
    remedy: str = ""

    def to_dict(self) -> JsonObject:
        """Return all fields."""
        return {**vars(self), "bank": str(self.bank), "models": [*self.models]}


def images_of(study: Study, directory: Path, ledgers: Mapping[Path, Ledger | None]) -> dict[str, Images]:
    """Return the image sets of a study by name.

    Args:
        ledgers: of the banks; those of others are read.

    Raises:
        BankError: a bank is damaged.
    """
    looked = {}
    for images in image_sets(study):
        bank = images.bank(directory)
        ledger = ledgers[bank] if bank in ledgers else Ledger.if_there(bank)
        if ledger is None:
            looked[images.name] = Images(images, bank, rows=_rows(images, directory))
        else:
            features = frozenset(ledger.features)
            looked[images.name] = Images(images, bank, True, ledger.bank.rows, features, ledger.embedded)
    return looked


def _rows(images: ImageSet, directory: Path) -> int | None:
    """Return the number of images, from the manifest if it is there, else as the adapter promises."""
    manifest = manifest_there(images, directory)
    if manifest is not None and manifest.suffix.lower() == ".parquet":
        from pyarrow import ArrowException, parquet

        try:
            return int(parquet.read_metadata(manifest).num_rows)
        except (OSError, ArrowException):
            return None
    builtin = images.data.builtin
    if builtin is None:
        return None
    return sum(counts_of(images).values()) or datasets.load(builtin).facts.images or None


def embed_passes(
    study: Study,
    images: Mapping[str, Images],
    rates: Rates,
    no_images: Mapping[str, Why | None],
    no_weights: Mapping[str, Why | None],
) -> tuple[EmbedPass, ...]:
    """Return the decode passes that banks lack, data set by data set; none of banks that the file names.

    Args:
        images: of the study, by name.
        rates: that were measured.
        no_images: name of an image set -> what it lacks; no_weights: name of a model -> what it lacks.
    """
    needed = _needed(study, images)
    passes: list[EmbedPass] = []
    for name, one in images.items():
        missing = [model for model in study.models if model.name in needed[name] - one.features]
        if one.images.data.bank is not None or not missing:
            continue
        able = [model for model in missing if no_weights[model.name] is None]
        unable = [model for model in missing if no_weights[model.name] is not None]
        groups = [able] if one.images.relabels else _renderings(able, one.images, study)
        made = [_pass(study, one, group, rates, no_images[name]) for group in groups if group]
        if unable:
            fetch = Why("Their weights are not here", "fetch them (`embank models fetch SLUG`)")
            made.append(_pass(study, one, unable, rates, no_images[name] or fetch))
        passes += made
    return tuple(passes)


def _needed(study: Study, images: Mapping[str, Images]) -> dict[str, set[str]]:
    """Return the models whose features each image set's evaluations take; name of the set -> names."""
    needed: dict[str, set[str]] = {name: set() for name in images}
    for data, evaluation in product(study.datasets, study.evaluations):
        if data.name in evaluation.datasets:
            for mode in evaluation.modes:
                one = image_set(data, evaluation.kind, mode)
                needed[one.name] |= set(evaluation.models)
                if one.relabels:  # its features are those of the data set's own bank
                    needed[data.name] |= set(evaluation.models)
    return needed


def _renderings(models: Sequence[Model], images: ImageSet, study: Study) -> list[list[Model]]:
    """Group models whose images are decoded and resized alike."""
    side = study.embed.get("side")
    groups: dict[str, list[Model]] = {}
    for model in models:
        own = recipe_of(model)
        word = (
            ""
            if own is None
            else images.recipe(own, side if isinstance(side, int) else None).rendering.digest
        )
        groups.setdefault(word, []).append(model)
    return list(groups.values())


def recipe_of(model: Model) -> Recipe | None:
    """Return the preprocessing of a model; None where only its weights say.

    Raises nothing for a file that is not there yet: embedding refuses it.
    """
    try:
        if model.recipe is not None:
            return load_recipe(model.recipe)
        return None if model.weights is not None else lookup.find(model.slug).recipe
    except Refused:
        return None


def _pass(study: Study, images: Images, models: Sequence[Model], rates: Rates, why: Why | None) -> EmbedPass:
    side = study.embed.get("side")
    pixels = side if isinstance(side, int) else None
    rows, takes_over = images.rows or 0, images.images.relabels
    width = 4 if study.embed.get("dtype") == "float32" else 2
    size = 0 if takes_over else sum(rows * width * (dimension_of(model, pixels) or 0) for model in models)
    estimate = pass_estimate(models, rows, pixels, rates)
    if takes_over:  # features are linked to, and read once
        estimate = Estimate(0.1 + rows * len(models) * 1e-5, True)
    return EmbedPass(
        images.images.name,
        images.bank,
        tuple(model.name for model in models),
        rows,
        size,
        estimate.seconds,
        estimate.measured,
        takes_over,
        *((why.reason, why.remedy) if why else ()),
    )
