"""Data sets, one module each: a new module in this package is a new data set."""

import dataclasses
import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from engine.datasets._page import page
from engine.datasets._pairs import view_pairs
from engine.datasets._protocol import MODES, Dataset, Facts, Mode, Option
from engine.errors import Refused

if TYPE_CHECKING:
    from stores.manifest.manifest import Manifest

__all__ = ["MODES", "Dataset", "Facts", "Mode", "Option", "available", "build", "load", "page", "view_pairs"]


def available() -> list[str]:
    """Return the names of the data sets, sorted, without importing them."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name.replace("_", "-") for name in modules if not name.startswith("_"))


def load(name: str) -> Dataset:
    """Import a data set by its name, in which dashes stand for the underscores of the module's name.

    Raises:
        Refused: there is no such data set.
    """
    if name not in available():
        raise Refused(
            f"data set {name!r}",
            f"It is one of {', '.join(available())}",
            "choose one, or use your own images with `embank manifest folder` or `embank manifest table`",
        )
    return cast(Dataset, importlib.import_module(f"{__name__}.{name.replace('-', '_')}"))


def build(
    name: str, root: Path | str, mode: str = "default", options: Mapping[str, str] | None = None
) -> "Manifest":
    """Make the manifest of a data set from its downloaded folder, and compare its counts with the facts.

    Args:
        name: one of `available`.
        root: the folder that `facts.layout` shows; embedded sets write their images there.
        mode: `default` or `as-published`.
        options: values for names in `facts.options`.

    Returns:
        The manifest; its notes say what was left out and how its counts differ from the complete data set's.

    Raises:
        Refused: unknown name, mode or option; a missing or malformed file, which is named.
        MachineFault: the disk is full or fails.
    """
    data_set, values = load(name), dict(options or {})
    facts = data_set.facts
    if mode not in facts.modes:
        raise Refused(
            f"mode {mode!r}", f"{name} has {' and '.join(facts.modes)}", "choose another, or leave it out"
        )
    _refuse_bad_options(facts, values)
    manifest = data_set.index(Path(root), mode, **values)
    expected = getattr(data_set, "expected", None)
    complete = expected(mode, **values) if expected else facts.classes
    return dataclasses.replace(manifest, notes=(*manifest.notes, *_count_notes(manifest, complete)))


def _refuse_bad_options(facts: Facts, values: Mapping[str, str]) -> None:
    options = {option.name: option for option in facts.options}
    for name, value in values.items():
        if name not in options:
            raise Refused(
                f"option {name!r}",
                f"{facts.name} has {', '.join(options) or 'no options'}",
                f"see `embank datasets show {facts.name}`",
            )
        allowed = options[name].values
        if allowed and value not in allowed:
            raise Refused(f"{name}={value!r}", f"It is one of {', '.join(allowed)}", "choose one of them")


def _count_notes(manifest: "Manifest", complete: Mapping[str, int]) -> list[str]:
    """Note how the counts differ from those of the complete data set; a part of it is not an error."""
    if not complete:
        return []
    counts = manifest.classes | ({"": manifest.unlabelled} if manifest.unlabelled else {})
    total = sum(complete.values())
    if counts == {label: count for label, count in complete.items() if count}:
        return [f"the counts are those of the whole data set: {total:,} images"]
    differing = [
        f"{label or '(no label)'} {counts.get(label, 0):,} of {complete.get(label, 0):,}"
        for label in sorted({*counts, *complete})
        if counts.get(label, 0) != complete.get(label, 0)
    ]
    return [
        f"{len(manifest):,} images, the whole data set has {total:,}: {', '.join(differing)}; a part of the "
        "download, or another version of it, is used as it is"
    ]
