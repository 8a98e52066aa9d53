"""Plan of an embed run: keys of features, one pass for each rendering, missing chunks, rows to try again.

Nothing here reads an image, a weight or a bank.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from engine.embed.options import EmbedOptions
from engine.errors import Refused
from engine.models import ModelSpec
from engine.recipes import Recipe
from engine.runtime import Runtime
from stores.bank.keys import Failure, FeatureKey
from stores.manifest.manifest import Manifest


def feature_key(spec: ModelSpec, decoder: str, runtime: Runtime, images: str, dtype: str) -> FeatureKey:
    """Make the key under which a model's features are stored: everything their values depend on."""
    return FeatureKey(
        model=spec.slug,
        weights=spec.weights_sha256,
        architecture=spec.architecture,
        recipe=spec.recipe.key_digest,
        precision=runtime.numerics,
        decoder=decoder,
        layer=spec.layer,
        images=images,
        dtype=dtype,
    )


def refuse_other_key(made: FeatureKey, wanted: FeatureKey) -> None:
    """Refuse to make other features than those wanted. Raises Refused."""
    if made != wanted:
        raise Refused(
            f"This machine would make {made.name} (decoder {made.decoder}, precision {made.precision}), "
            f"not {wanted.name}",
            "All processes of a run make the same features",
            "name both (`embank embed --decoder NAME --precision NAME`), and install the same packages on "
            "all machines",
        )


@dataclass(frozen=True)
class Setup:
    """Settings that all features of a run share; pickled for worker processes.

    Attributes:
        runtime: of the processes that compute.
        decoder: full name of the decoder there (`engine.decode.decoder_name`).
        images: what keys say of the images.
        image_set: name of the image set; "" for the images that the bank saw first.
    """

    runtime: Runtime
    options: EmbedOptions
    decoder: str
    images: str
    image_set: str = ""

    def key(self, spec: ModelSpec, decoder: str | None = None) -> FeatureKey:
        """Make the key of a model's features, as this setup's decoder or another one makes them."""
        return feature_key(spec, decoder or self.decoder, self.runtime, self.images, self.options.dtype)


@dataclass(frozen=True)
class PassPlan:
    """One decode pass: models that render alike.

    Attributes:
        positions: of the models in the run.
        specs, keys: of the models, in this order.
    """

    positions: tuple[int, ...]
    specs: tuple[ModelSpec, ...]
    keys: tuple[FeatureKey, ...]


@dataclass(frozen=True)
class Plan:
    """The images, models and names of a run.

    Attributes:
        manifest: the images, with the ids and the text that the bank has.
        specs: the models, with the rules for deep images that their features have.
        name_of: slug -> the name that the user gives to its features.
    """

    manifest: Manifest
    setup: Setup
    specs: tuple[ModelSpec, ...]
    name_of: Mapping[str, str]

    @cached_property
    def passes(self) -> tuple[PassPlan, ...]:
        """The decode passes, in the order of their first models."""
        return tuple(
            PassPlan(
                tuple(group),
                tuple(self.specs[i] for i in group),
                tuple(self.setup.key(self.specs[i]) for i in group),
            )
            for group in group_by_rendering(self.specs)
        )

    def names(self, *passes: PassPlan) -> dict[str, str]:
        """Map the full name of each feature of the passes that is given a name to that name."""
        return {
            key.name: self.name_of[spec.slug]
            for planned in passes
            for spec, key in zip(planned.specs, planned.keys, strict=True)
            if spec.slug in self.name_of
        }


def group_by_rendering(specs: Sequence[ModelSpec]) -> list[list[int]]:
    """Group the positions of models that render alike, and so share one decode pass."""
    groups: dict[Recipe, list[int]] = {}
    for i, spec in enumerate(specs):
        groups.setdefault(spec.recipe.rendering, []).append(i)
    return list(groups.values())


@dataclass(frozen=True)
class ChunkTask:
    """Work to do in one chunk.

    Attributes:
        models: positions, within their pass, of those that need it.
        rows: to be tried again, in a chunk that is committed; empty if the whole chunk is missing.
    """

    chunk: int
    models: tuple[int, ...]
    rows: tuple[int, ...] = ()


def chunks_to_do(missing: Sequence[set[int]]) -> list[ChunkTask]:
    """Plan the chunks that any model lacks, in order; `missing` has those of each model."""
    return [
        ChunkTask(chunk, tuple(i for i, chunks in enumerate(missing) if chunk in chunks))
        for chunk in sorted(set().union(*missing))
    ]


def rows_to_retry(
    failures: Sequence[Mapping[int, Sequence[Failure]]],
    missing: Sequence[set[int]],
    is_worth_it: Callable[[int, Failure], bool],
) -> list[ChunkTask]:
    """Plan the rows without embedding, in committed chunks, that are to be tried again.

    Args:
        failures: of each model, chunk -> its rows without embedding.
        missing: of each model, the chunks that are to be done as a whole.
        is_worth_it: whether to try a row of a model, given its position, again.
    """
    models: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for i, chunks in enumerate(failures):
        for chunk in chunks.keys() - missing[i]:
            rows = tuple(failure.row for failure in chunks[chunk] if is_worth_it(i, failure))
            if rows:
                models.setdefault((chunk, rows), []).append(i)
    return [ChunkTask(chunk, tuple(lacking), rows) for (chunk, rows), lacking in sorted(models.items())]
