"""Installed versions of the packages that can change a number, stored with features and in every record."""

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
    """Return the version of Python and of each package that is installed.

    Versions come from the names of metadata folders (PEP 376): reading the metadata would take a noticeable
    part of a command that finishes within a second.
    """
    version_of = {"python": platform.python_version()}
    installed = _installed()
    for name in packages:
        if version := installed.get(_normal(name)):
            version_of[name] = version
    return version_of


def _installed() -> dict[str, str]:
    """Return normalised name -> version of every distribution; of several, the one imported first."""
    version_of: dict[str, str] = {}
    for folder in sys.path:
        try:
            entries = os.listdir(folder or ".")  # noqa: PTH208 - names are enough
        except OSError:  # a zip file, or no such folder
            continue
        for entry in entries:
            stem, _, kind = entry.rpartition(".")
            if kind in ("dist-info", "egg-info"):
                name, _, version = stem.partition("-")
                version_of.setdefault(_normal(name), version.partition("-")[0])
    return version_of


def _normal(name: str) -> str:
    """Normalise a distribution's name as in PEP 503, with underscores as in folder names."""
    return name.lower().replace("-", "_").replace(".", "_")
