"""Installed versions of what can change a number. They stand beside features and in every record."""

import os
import platform
import sys
from collections.abc import Sequence

#: Distributions whose version can change a number.
PACKAGES = (
    "embank", "numpy", "pillow", "torch", "torchvision", "nvidia-dali-cuda130", "timm", "zarr", "numcodecs",
    "faiss-cpu", "faiss-gpu", "cuml-cu13", "dask", "scikit-learn",
    "pydicom", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle", "pyjpegls",
    "python-gdcm",
)  # fmt: skip


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Installed version of Python and of each package, by default those that can change a number.

    Taken from the names of the metadata folders (PEP 376): reading the metadata themselves takes long
    enough to be noticed in a command that is done within a second.
    """
    found = {"python": platform.python_version()}
    installed = _installed()
    for name in packages:
        if version := installed.get(_normal(name)):
            found[name] = version
    return found


def _installed() -> dict[str, str]:
    """Normalised name -> version of every distribution, that which is imported first."""
    found: dict[str, str] = {}
    for place in sys.path:
        try:
            entries = os.listdir(place or ".")  # noqa: PTH208 - names are enough
        except OSError:  # a zip file, or nothing
            continue
        for entry in entries:
            stem, _, kind = entry.rpartition(".")
            if kind in ("dist-info", "egg-info"):
                name, _, version = stem.partition("-")
                found.setdefault(_normal(name), version.partition("-")[0])
    return found


def _normal(name: str) -> str:
    """A distribution's name as PEP 503 compares it, with underscores as in the names of folders."""
    return name.lower().replace("-", "_").replace(".", "_")
