"""The very backbone that made a bank's features, for evaluations that need features of changed images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.decode.source import ImageSource, Limits
from engine.errors import Refused
from engine.models import ModelSpec, resolve
from engine.provenance import recorded
from engine.recipes import Recipe
from engine.runtime import Runtime, cuda_available
from stores.read import FeatureSet


@dataclass(frozen=True)
class Backbone:
    """What made the features, found again.

    Attributes:
        spec: with the weights and the recipe of the feature key.
        runtime: the precision of the bank, on the device chosen now.
        images: the manifest's files.
        made: the feature's provenance.
    """

    spec: ModelSpec
    runtime: Runtime
    images: ImageSource
    made: dict[str, Any]


def restore(
    features: FeatureSet, *, weights: Path | None = None, root: Path | None = None, device: str = "auto"
) -> Backbone:
    """Resolve a feature's model again and make sure that its weights are the same.

    Args:
        weights: the weights file, where it is not at its recorded place any more.
        root: the images' folder, likewise.
        device: `auto` is the device that the bank was made on, if it is here, else the CPU.

    Raises:
        Refused: the weights are not there, or are others than the bank's.
    """
    made = recorded(features.bank, features.name)
    settings = made["runtime"]
    if device == "auto":
        device = settings["device"] if settings["device"] == "cpu" or cuda_available() else "cpu"
    runtime = Runtime.resolve(
        device, settings["precision"], seed=settings["seed"], compile=settings["compile"]
    )
    recipe = Recipe.from_dict(made["recipe"])
    spec = resolve(made["model"], weights=_weights_file(made, weights), recipe=recipe, seed=settings["seed"])
    if spec.weights_sha256 != features.key.weights:
        raise Refused(
            f"weights {spec.weights_sha256[:12]} ({spec.weights_source})",
            f"The bank's features were made with {features.key.weights[:12]}",
            "give the original file with --weights",
        )
    manifest = features.bank.manifest()
    source = ImageSource(
        root=(root or Path(made["root"])).resolve(),
        uris=manifest.uris,
        sha256=manifest.sha256s,
        limits=Limits(**made["options"]["limits"]),
        allow_outside=bool(made["options"]["allow_outside"]),
    )
    return Backbone(spec, runtime, source, made)


def _weights_file(made: dict[str, Any], given: Path | None) -> Path | None:
    """The file to read; None where weights are drawn from a seed."""
    if given is not None or not made["weights_path"]:
        return given
    recorded = Path(made["weights_path"])
    if not recorded.is_file():
        raise Refused(
            f"the weights of {made['model']} are not at {recorded} any more",
            "Changed images go through the very weights of the bank",
            "give the file with --weights FILE",
        )
    return recorded
