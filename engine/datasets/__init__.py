"""Data sets, one file each, found by its name: a new file here is a new data set."""

import importlib
import pkgutil
from typing import cast

from engine.datasets._protocol import Dataset, Facts
from engine.errors import Refused

__all__ = ["Dataset", "Facts", "available", "load"]


def available() -> list[str]:
    """Names of the data sets, sorted; nothing is imported."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load(name: str) -> Dataset:
    """The data set of that name.

    Raises:
        Refused: there is none.
    """
    if name not in available():
        raise Refused(
            f"data set {name!r}",
            f"It is one of {', '.join(available())}",
            "choose one, or use your own images with `embank manifest folder` or `embank manifest table`",
        )
    return cast(Dataset, importlib.import_module(f"{__name__}.{name}"))
