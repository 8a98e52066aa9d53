"""The data sets of a study file."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from engine import datasets
from engine.errors import Refused
from engine.study import schema
from engine.study.kinds import KINDS_BY_NAME
from engine.study.place import inside
from engine.study.study import DataSet
from engine.study.values import Value, suggestion
from stores.json_types import Json

if TYPE_CHECKING:
    from engine.datasets import Facts


def read_dataset(name: str, value: Value, root: Path, strata: tuple[str, ...]) -> DataSet:
    """Read one data set.

    Args:
        name: in the file.
        value: of its keys, perhaps nothing.
        root: that no path may leave.
        strata: of the study.

    Raises:
        Refused: unknown keys or names, or a source that is none or several.
    """
    values = value.members(schema.names(schema.DATASET))
    builtin = _builtin(name, value, values)
    paths = {
        key: inside(values[key], root) for key in ("folder", "manifest", "root", "bank") if key in values
    }
    for key, needed, other in (
        ("folder", "builtin", builtin),
        ("build", "builtin", builtin),
        ("root", "manifest", paths.get("manifest")),
    ):
        if key in values and other is None:
            raise values[key].refused(f"It goes with {needed}", f"remove it, or name a {needed}", "")
    return DataSet(
        name=name,
        builtin=builtin,
        folder=paths.get("folder"),
        manifest=paths.get("manifest"),
        root=paths.get("root"),
        bank=paths.get("bank"),
        label=values["label"].unique(Value.text) if "label" in values else ("label",),
        strata=strata_of(values["strata"]) if "strata" in values else strata,
        domain=values["domain"].text() if "domain" in values else "",
        options=_options(values["options"]) if "options" in values else {},
        line=value.line,
        build=_build(values["build"], builtin) if "build" in values and builtin else {},
    )


def strata_of(value: Value) -> tuple[str, ...]:
    """Return columns of strata, e.g. `sex` or `age:40,60`; an empty list for none.

    Raises:
        Refused: edges that are not ascending numbers, or a column named twice.
    """
    from engine.evals.probe.stratify import Stratify, check_strata

    if value.node.kind == "list" and not value.node.items:
        return ()
    words = value.unique(Value.text)
    try:
        check_strata(tuple(map(Stratify.parse, words)))
    except Refused as error:
        raise value.refused(error.rule, KINDS_BY_NAME["probe"].as_in_file(error.remedy)) from error
    return words


def _builtin(name: str, value: Value, values: Mapping[str, Value]) -> str | None:
    """Return the adapter of `engine.datasets`; None where the images come from a manifest or a bank."""
    given = [key for key in ("builtin", "manifest", "bank") if key in values]
    if len(given) > 1:
        raise value.refused(
            f"{' and '.join(given)} name its images, and one of them does", "remove the others", ""
        )
    known = datasets.available()
    if not given and name not in known:
        hint = suggestion(name, known)
        raise value.refused(
            f"It is one of {', '.join(known)}, or has a manifest, a bank or a builtin",
            f"{hint}, or add manifest: FILE" if hint else "add manifest: FILE (`embank manifest folder`)",
            "",
        )
    if given and given != ["builtin"]:
        return None
    builtin = values["builtin"].word(known) if given else name
    embedded = datasets.load(builtin).facts.embedded
    if embedded and "folder" in values:
        raise values["folder"].refused(f"embank writes the images of {builtin} itself", "remove folder")
    if not embedded and "folder" not in values:
        raise value.refused(
            f"{builtin} is read from a folder", f"add folder: PATH (`embank datasets show {builtin}`)", ""
        )
    return builtin


def _build(value: Value, builtin: str) -> dict[str, str]:
    """Read options of the adapter."""
    facts: Facts = datasets.load(builtin).facts
    known = {option.name: option.values for option in facts.options}
    build = {}
    for name, entry in value.members(list(known)).items():
        build[name] = entry.word(known[name]) if known[name] else entry.text()
    return build


def _options(value: Value) -> dict[str, dict[str, Json]]:
    """Read options of kinds, each of its type; whether they go together is checked with the evaluation."""
    options: dict[str, dict[str, Json]] = {}
    for kind, entry in value.members(list(KINDS_BY_NAME)).items():
        known = {option.name: option for option in KINDS_BY_NAME[kind].options}
        options[kind] = {
            name: given.option(known[name]) for name, given in entry.members(list(known)).items()
        }
    return options
