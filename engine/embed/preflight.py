"""What an embedding run can be refused for, found out before anything is made: bank, decoder, weights."""

from collections.abc import Sequence
from typing import Any

from engine import models
from engine.decode import decoder_name
from engine.embed.worker import EmbedOptions, decoder_of, feature_key, refuse_other_key
from engine.executors import Executor
from engine.models import ModelSpec
from engine.recipes import Recipe
from engine.runtime import Runtime, fix_flags
from stores.backends import locks
from stores.backends.location import Place, place
from stores.bank.layout import FeatureLayout, Grid, default_chunk_rows, images_key
from stores.bank.markers import missing_chunks
from stores.bank.writer import refuse_other_labels, refuse_unfit
from stores.manifest.manifest import Manifest


def by_rendering(specs: Sequence[ModelSpec]) -> list[list[int]]:
    """Positions of models that render alike, and so share one decode pass."""
    groups: dict[Recipe, list[int]] = {}
    for i, spec in enumerate(specs):
        groups.setdefault(spec.recipe.rendering, []).append(i)
    return list(groups.values())


def preflight(
    bank: Place | str,
    manifest: Manifest,
    specs: Sequence[ModelSpec],
    runtime: Runtime,
    options: EmbedOptions,
    executor: Executor | None = None,
    *,
    image_set: str = "",
) -> dict[ModelSpec, Any]:
    """Refuse whatever `embed` would refuse later on; changes nothing on disk.

    Weights are read and fitted only of models that have something to compute; else torch is not imported.

    Args:
        image_set: of the features, if they are not of the images that the bank saw first.

    Returns:
        The encoders that were made ready here, for a run of one decode pass; a run of several loads them
        again pass by pass, so that their memory does not add up.

    Raises:
        Refused: a bank of other images, labels or chunks, a decoder or weights that cannot be used, a feature
            that another process is writing.
    """
    path = place(bank)
    store = refuse_unfit(path, manifest, options.chunk_rows)
    if store is not None:
        refuse_other_labels(store, manifest)
    grid = (
        store.grid if store else Grid(len(manifest), options.chunk_rows or default_chunk_rows(len(manifest)))
    )
    images = images_key(manifest.image_digest, image_set)
    asked = (options.decoder, runtime.device, options.dct)
    decoder = executor.ask(decoder_name, *asked) if executor else decoder_name(*asked)
    todo = []
    for spec in specs:
        key = feature_key(spec, decoder, runtime, images, options.dtype)
        layout = FeatureLayout(path.resolve(), key, spec.dim, grid)
        if store is not None:
            locks.refuse_taken(layout.side / "lock", f"Feature {key.name} of {store.path}")
        if missing_chunks(layout):
            todo.append(spec)
    size = options.batch_for(runtime, grid.chunk_rows)
    groups = [tuple(todo[i] for i in group) for group in by_rendering(todo)]
    work = (images, runtime, options, decoder, size)
    if executor:
        for group in groups:
            executor.ask(_try, group, *work)
        return {}
    if len(groups) == 1:
        return make_ready(groups[0], *work)
    for group in groups:
        _try(group, *work)
    return {}


def _try(*arguments: Any) -> None:
    """`make_ready`, and let go of what it gave."""
    make_ready(*arguments)


def make_ready(
    specs: Sequence[ModelSpec],
    images: str,
    runtime: Runtime,
    options: EmbedOptions,
    decoder: str,
    batch_size: int,
) -> dict[ModelSpec, Any]:
    """Make the decoder of models that render alike, and read, fit and load their weights.

    Args:
        images: what the features' keys say of the images.
        decoder: the name that the features' keys have.
        batch_size: images a forward pass.

    Returns:
        The encoders.

    Raises:
        Refused: this machine would make other features, or has not what it takes.
        ModelError, WeightsError: as `engine.models.load`.
    """
    fix_flags(runtime)
    made = decoder_of(specs[0].recipe.rendering, runtime, options, batch_size)
    name = made.name
    made.close()
    for spec in specs:
        wanted = feature_key(spec, decoder, runtime, images, options.dtype)
        refuse_other_key(feature_key(spec, name, runtime, images, options.dtype), wanted)
    return {spec: models.load(spec, runtime) for spec in specs}
