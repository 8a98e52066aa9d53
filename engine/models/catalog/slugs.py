"""Slugs of models that somebody may have meant who wrote another."""

import importlib
from collections.abc import Sequence

from engine.models.catalog.entry import Row
from engine.models.catalog.suggest import MOST, close


def nearest(slug: str, rows: Sequence[Row]) -> list[str]:
    """The slugs most like one that is unknown; imports the libraries that know names, and fetches nothing.

    Args:
        slug: what was written.
        rows: of the catalogue; a row `NAMESPACE/NAME` stands for the names that its library knows.
    """
    plain = slug.partition("+")[0].strip().lower()
    own = [row.slug for row in rows if not row.slug.endswith("/NAME")]
    families = [row for row in rows if row.slug.endswith("/NAME")]
    found = close(plain, own)
    name = plain.rpartition("/")[2]
    library_names = {library: _names(library) for library in ("torchvision", "timm")}
    for row in families:
        names = library_names.get(row.architecture.partition("/")[0], [])
        fitting = [name] if name in names else close(name, names)[:1]
        found += [row.slug.replace("NAME", each) for each in fitting]
    exact = [each for each in found if each.rpartition("/")[2] == name]
    return list(dict.fromkeys(exact or found))[:MOST]


def _names(library: str) -> list[str]:
    """Names of a library's classifiers; none where it is not installed."""
    try:
        if library == "timm":
            return list(importlib.import_module("timm").list_models())
        models = importlib.import_module("torchvision.models")
        return list(models.list_models(module=models))
    except ImportError:
        return []
