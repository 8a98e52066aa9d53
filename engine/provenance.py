"""What made a number: versions, weights, settings. Written beside features, into every record."""

import platform
from dataclasses import asdict
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.extract import EmbedOptions
    from engine.models import ModelSpec
    from engine.runtime import Runtime
    from stores.manifest import Manifest

#: Distributions whose version can change a number.
PACKAGES = (
    "embank", "numpy", "pillow", "torch", "torchvision", "nvidia-dali-cuda130", "timm", "zarr", "numcodecs",
    "faiss-cpu", "faiss-gpu", "cuml-cu13", "dask", "scikit-learn",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Installed version of each package that can change a number, and of Python."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


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
        "recipe": asdict(spec.recipe),
        "root": str(manifest.root),
        "decoder": decoder,
        "options": of_options(options),
        "runtime": asdict(runtime),
        "versions": versions(),
    }
