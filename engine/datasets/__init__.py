"""Data sets, one file each, found by its name: a new file here is a new data set."""

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
    """Names of the data sets, sorted; nothing is imported."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name.replace("_", "-") for name in modules if not name.startswith("_"))


def load(name: str) -> Dataset:
    """The data set of that name. A dash in a name is an underscore in its module's.

    Raises:
        Refused: there is none.
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
    """Make the manifest of a data set from its downloaded folder, and hold its counts against the facts.

    Args:
        name: of `available`.
        root: the folder that `facts.layout` shows; embedded sets write their images there.
        mode: `default` or `as-published`.
        options: values for names in `facts.options`.

    Returns:
        the manifest; its notes say what was left out and how the counts differ from the whole data set's.

    Raises:
        Refused: unknown name, mode or option; a missing or malformed file, naming it.
        MachineFault: the disk is full or fails.
    """
    data_set, given = load(name), dict(options or {})
    facts = data_set.facts
    if mode not in facts.modes:
        raise Refused(
            f"mode {mode!r}", f"{name} has {' and '.join(facts.modes)}", "choose another, or leave it out"
        )
    _refuse_options(facts, given)
    manifest = data_set.index(Path(root), mode, **given)
    expected = getattr(data_set, "expected", None)
    whole = expected(mode, **given) if expected else facts.classes
    return dataclasses.replace(manifest, notes=(*manifest.notes, *_count_notes(manifest, whole)))


def _refuse_options(facts: Facts, given: Mapping[str, str]) -> None:
    known = {option.name: option for option in facts.options}
    for name, value in given.items():
        if name not in known:
            raise Refused(
                f"option {name!r}",
                f"{facts.name} has {', '.join(known) or 'no options'}",
                f"see `embank datasets show {facts.name}`",
            )
        values = known[name].values
        if values and value not in values:
            raise Refused(f"{name}={value!r}", f"It is one of {', '.join(values)}", "choose one of them")


def _count_notes(manifest: "Manifest", whole: Mapping[str, int]) -> list[str]:
    """Say how the counts differ from those of the whole data set; a subset is no fault, but is said."""
    if not whole:
        return []
    found = manifest.classes | ({"": manifest.unlabelled} if manifest.unlabelled else {})
    total = sum(whole.values())
    if found == {label: count for label, count in whole.items() if count}:
        return [f"the counts are those of the whole data set: {total:,} images"]
    differing = [
        f"{label or '(no label)'} {found.get(label, 0):,} of {whole.get(label, 0):,}"
        for label in sorted({*found, *whole})
        if found.get(label, 0) != whole.get(label, 0)
    ]
    return [
        f"{len(manifest):,} images, the whole data set has {total:,}: {', '.join(differing)}; a part of the "
        "download, or another version of it, is used as it is"
    ]
