"""Provenance of a feature: weights, settings and versions, kept beside it for computing it again."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from engine.decode.source import Limits
from engine.embed.options import EmbedOptions
from engine.embed.plan import Setup
from engine.errors import BankError
from engine.models import ModelSpec
from engine.recipes import Recipe
from engine.runtime import Runtime
from engine.versions import versions
from stores.bank.layout import SIDE
from stores.bank.reader import Bank
from stores.json_types import JsonObject
from stores.manifest.manifest import Manifest

#: A JSON document whose members have not been checked.
JsonDocument: TypeAlias = Mapping[str, Any]


def options_document(options: EmbedOptions) -> JsonObject:
    """Give the settings of an embed run as plain values."""
    return asdict(options)


def provenance_document(spec: ModelSpec, manifest: Manifest, setup: Setup) -> JsonObject:
    """Return the provenance of a model's features, as `Provenance` reads it."""
    return {
        "model": spec.slug,
        "weights_source": spec.weights_source,
        "weights_path": str(spec.weights_path.resolve()) if spec.weights_path else None,
        "weights_sha256": spec.weights_sha256,
        "recipe": spec.recipe.to_dict(),
        "root": os.path.abspath(manifest.root),  # noqa: PTH100 - a link to the images may be turned later
        "decoder": setup.decoder,
        "options": options_document(setup.options),
        "runtime": asdict(setup.runtime),
        "versions": dict(versions()),
        **({"lineage": spec.lineage.to_dict()} if spec.lineage else {}),
    }


@dataclass(frozen=True)
class Provenance:
    """Provenance of a feature, as its run recorded it.

    Attributes:
        model: slug.
        weights_source: the weights in a few words.
        weights_path: their file, None where they were drawn from `runtime.seed`.
        weights_sha256: of the file, or of the tensors drawn.
        recipe: preprocessing.
        root: folder of the images; absolute, but in banks of early versions as the user typed it.
        decoder: full name of the decoder that ran, e.g. `dali-mixed`; empty in banks of early versions.
        options: of the run.
        runtime: of the run: the device, precision, threads and seed of then.
    """

    model: str
    weights_source: str
    weights_path: Path | None
    weights_sha256: str
    recipe: Recipe
    root: Path
    decoder: str
    options: EmbedOptions
    runtime: Runtime

    @classmethod
    def of(cls, bank: Bank, feature: str) -> "Provenance":
        """Read a feature's provenance.

        Args:
            feature: its full name.

        Raises:
            BankError: it is missing or damaged, says too little, or has unknown fields.
        """
        body = bank.provenance(feature)
        if not _is_complete(body):
            raise BankError(
                f"The provenance of {feature} in {bank.path} does not say how the feature was made",
                "It names model, weights, recipe, root, options and runtime",
                "run the same `embank embed` command again, which writes it anew",
            )
        try:
            return cls._parse(body)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BankError(
                f"{bank.path / SIDE / feature / 'provenance.json'} cannot be understood ({error!r})",
                "It says how the feature was made, in the fields of this version or an earlier one",
                "use the version of embank that made the feature, or embed into a new bank",
            ) from error

    @classmethod
    def _parse(cls, body: JsonDocument) -> "Provenance":
        weights_path, options = body["weights_path"], body["options"]
        return cls(
            model=body["model"],
            weights_source=body["weights_source"],
            weights_path=Path(weights_path) if weights_path else None,
            weights_sha256=body["weights_sha256"],
            recipe=Recipe.from_dict(body["recipe"]),
            root=Path(body["root"]),
            decoder=body.get("decoder", ""),
            options=EmbedOptions(**{**options, "limits": Limits(**options["limits"])}),
            runtime=Runtime(**body["runtime"]),
        )


def _is_complete(body: JsonDocument) -> bool:
    options, runtime = body.get("options"), body.get("runtime")
    if (
        not isinstance(options, dict)
        or not isinstance(runtime, dict)
        or not isinstance(body.get("recipe"), dict)
    ):
        return False
    limits = options.get("limits")
    return (
        all(_is_text(body.get(name)) for name in ("model", "root"))
        and (body.get("weights_path") is None or _is_weights(body["weights_path"]))
        and isinstance(limits, dict)
        and limits.keys() == {"max_pixels", "max_bytes"}
        and all(type(limit) is int for limit in limits.values())
        and "allow_outside" in options
        and all(_is_text(runtime.get(name)) for name in ("device", "precision"))
        and all(type(runtime.get(name)) is int for name in ("seed", "threads"))
        and isinstance(runtime.get("compile"), bool)
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_weights(value: object) -> bool:
    """Return whether a value can be the path of weights: a file, or one that has moved, but no device."""
    return _is_text(value) and (not Path(str(value)).exists() or Path(str(value)).is_file())


def recipe_of(bank: Bank, feature: str) -> Recipe:
    """Return the preprocessing of a feature, by its full name. Raises BankError as `Provenance.of`."""
    return Provenance.of(bank, feature).recipe


#: Beginnings of the slugs of untrained networks, for features whose provenance is lost.
_UNTRAINED = ("random/", "random-")


def is_untrained(bank: Bank, feature: str, slug: str) -> bool:
    """Return whether the weights of a feature were drawn from a seed, by its provenance or else its slug.

    Args:
        feature: its full name.
        slug: of its model.
    """
    try:
        made = bank.provenance(feature)
    except BankError:
        made = {}
    return made["weights_path"] is None if "weights_path" in made else slug.startswith(_UNTRAINED)


def has_own_weights(bank: Bank, feature: str) -> bool:
    """Return whether a feature's weights are a file that the user gave, or were trained on from others.

    Args:
        feature: its full name.

    Raises:
        BankError: the provenance is missing or damaged.
    """
    body = bank.provenance(feature)
    return str(body.get("weights_source", "")).startswith("file ") or bool(body.get("lineage"))
