"""What made a feature: weights, settings, versions. Written beside it, for whoever computes it again."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import BankError
from engine.versions import versions

if TYPE_CHECKING:
    from engine.embed.worker import EmbedOptions
    from engine.models import ModelSpec
    from engine.runtime import Runtime
    from stores.bank.reader import Bank
    from stores.manifest.manifest import Manifest


def of_options(options: "EmbedOptions") -> dict[str, Any]:
    """The settings of an embed run as plain values."""
    return asdict(options)


def of_features(
    spec: "ModelSpec", manifest: "Manifest", options: "EmbedOptions", runtime: "Runtime", decoder: str
) -> dict[str, Any]:
    """What `bank repair` needs to compute the features again."""
    return {
        "model": spec.slug,
        "weights_source": spec.weights_source,
        "weights_path": str(spec.weights_path.resolve()) if spec.weights_path else None,
        "weights_sha256": spec.weights_sha256,
        "recipe": spec.recipe.to_dict(),
        "root": os.path.abspath(manifest.root),  # noqa: PTH100 - a link to the images may be turned later
        "decoder": decoder,
        "options": of_options(options),
        "runtime": asdict(runtime),
        "versions": versions(),
    }


def recorded(bank: "Bank", feature: str) -> dict[str, Any]:
    """What `of_features` wrote of a feature, for whoever computes with the same settings again.

    Raises:
        BankError: it is lost or damaged, or lacks what it has to say.
    """
    made = bank.provenance(feature)
    if not _is_complete(made):
        raise BankError(
            f"The provenance of {feature} in {bank.path} does not say how the feature was made",
            "It names model, weights, recipe, root, options and runtime",
            "run the same `embank embed` command again, which writes it anew",
        )
    return made


def _is_complete(made: dict[str, Any]) -> bool:
    options, runtime = made.get("options"), made.get("runtime")
    if (
        not isinstance(options, dict)
        or not isinstance(runtime, dict)
        or not isinstance(made.get("recipe"), dict)
    ):
        return False
    limits = options.get("limits")
    return (
        all(_is_text(made.get(name)) for name in ("model", "root"))
        and (made.get("weights_path") is None or _is_weights(made["weights_path"]))
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
    """Whether it can be the path of weights: of a file, or of one that has moved, but not of a device."""
    return _is_text(value) and (not Path(str(value)).exists() or Path(str(value)).is_file())
