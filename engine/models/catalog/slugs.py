"""Suggestions for slugs that the catalogue does not have."""

import importlib
from collections.abc import Sequence

from engine.models.catalog.entry import Row
from engine.models.catalog.suggest import MAX_SUGGESTIONS, close_matches


def nearest(slug: str, rows: Sequence[Row]) -> list[str]:
    """Return the slugs closest to an unknown one, the closest first.

    The libraries are imported for the names of their models; nothing is fetched.

    Args:
        slug: the unknown one.
        rows: of the catalogue; a row `NAMESPACE/NAME` stands for all names that its library has.
    """
    plain = slug.partition("+")[0].strip().lower()
    single = [row.slug for row in rows if not row.slug.endswith("/NAME")]
    families = [row for row in rows if row.slug.endswith("/NAME")]
    suggestions = close_matches(plain, single)
    name = plain.rpartition("/")[2]
    library_names = {library: _names(library) for library in ("torchvision", "timm")}
    for row in families:
        names = library_names.get(row.architecture.partition("/")[0], [])
        near = [name] if name in names else close_matches(name, names)[:1]
        suggestions += [row.slug.replace("NAME", near_name) for near_name in near]
    exact = [suggestion for suggestion in suggestions if suggestion.rpartition("/")[2] == name]
    return list(dict.fromkeys(exact or suggestions))[:MAX_SUGGESTIONS]


def _names(library: str) -> list[str]:
    """Return the names of a library's classifiers; none if it is not installed."""
    try:
        if library == "timm":
            return list(importlib.import_module("timm").list_models())
        models = importlib.import_module("torchvision.models")
        return list(models.list_models(module=models))
    except ImportError:
        return []
