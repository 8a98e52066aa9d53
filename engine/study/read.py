"""Study files: read and checked as far as this is possible without data."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path

from engine.errors import Refused
from engine.study import schema
from engine.study.cells import count_cells, options_for
from engine.study.document import read_document
from engine.study.image_sets import MADE
from engine.study.read_datasets import read_dataset, strata_of
from engine.study.read_evaluations import Defaults, check_options, read_evaluation
from engine.study.read_models import read_models
from engine.study.study import DataSet, Evaluation, Model, Study
from engine.study.values import Value, check_name
from stores.json_types import Json
from stores.limits import check_number, check_whole

#: Most cells of a study, a hundred times those of `paper.yaml`; and most entries of a mapping.
MAX_CELLS, _MAX_ENTRIES = 100_000, 1000
_NEEDED = {
    "study": "study: NAME",
    "datasets": "datasets: [digits], for instance",
    "models": "models: [efficientnet-lite0], for instance",
    "evaluations": "evaluations: [fewshot], for instance",
}


def read_study(path: Path, root: Path | None = None) -> Study:
    """Read and check a study file; opens no other file, and executes nothing.

    Everything that can be checked without data is: names, options, paths, references. What a data set cannot
    have is no error here (`engine.study.cells`, `engine.study.plan`). Names of models of torchvision and timm
    that were not used on this machine before are looked up in these libraries, which takes seconds.

    Args:
        path: of the file.
        root: folder that its paths are relative to and may not leave; None for the file's own.

    Raises:
        Refused: the first error, as `FILE, line 12: evaluations.fewshot.n_wya`, with rule and remedy.
        MachineFault: I/O error.
    """
    node, _ = read_document(path)
    root = (root or path.absolute().parent).resolve()
    values = Value(path.name, "", node, node.line).members(schema.names(schema.STUDY))
    for key, remedy in _NEEDED.items():
        if key not in values:
            raise Refused(f"{path.name}: no key {key}", "A study has one", f"add {remedy}")
        if values[key].node.kind == "nothing":
            raise values[key].refused("It has a value", f"write {remedy}")
    strata = strata_of(values["strata"]) if "strata" in values else ()
    datasets = tuple(
        read_dataset(name, value, root, strata) for name, value in _named(values["datasets"]).items()
    )
    models = read_models(values["models"], root)
    study = Study(
        name=values["study"].name(),
        title=values["title"].text() if "title" in values else values["study"].name(),
        root=root,
        datasets=datasets,
        models=models,
        evaluations=_evaluations(values, datasets, models),
        embed=_embed(values["embed"]) if "embed" in values else {},
    )
    _refuse_too_many(study, values["evaluations"])
    _refuse_own_files(study, values["datasets"])
    _refuse_bad_overrides(study, values["datasets"])
    return study


def _named(value: Value) -> dict[str, Value]:
    """Return entries by name: of a mapping, or of a list of names alone."""
    if value.node.kind == "mapping":
        entries = value.members()
        for name, entry in entries.items():
            check_name(name, entry)
    else:
        for item in value.items():
            if item.node.kind == "mapping":
                raise item.refused("A list has names alone", "write NAME: {...} in lines without dashes")
        names = value.unique(Value.name)
        bare = (replace(item, path=f"{value.path}.{item.node.text}") for item in value.items())
        entries = {name: item.empty() for name, item in zip(names, bare, strict=True)}
    if not entries:
        raise value.refused("It has at least one", "add one")
    if len(entries) > _MAX_ENTRIES:
        raise value.refused(f"It has at most {_MAX_ENTRIES:,} entries", "make several studies")
    lower: dict[str, str] = {}
    for name, entry in entries.items():
        if (other := lower.setdefault(name.lower(), name)) != name:
            raise entry.refused(f"{other} is the same name on some disks", "give it another name")
    return entries


def _evaluations(
    values: Mapping[str, Value], datasets: tuple[DataSet, ...], models: tuple[Model, ...]
) -> tuple[Evaluation, ...]:
    defaults = Defaults.of(values, [data.name for data in datasets], [model.name for model in models])
    entries = _named(values["evaluations"])
    return tuple(read_evaluation(name, value, defaults) for name, value in entries.items())


def _embed(value: Value) -> dict[str, Json]:
    options = {option.name: option for option in schema.EMBED}
    embed: dict[str, Json] = {}
    for name, entry in value.members(list(options)).items():
        if name in schema.EMBED_WORDS:
            embed[name] = entry.word(schema.EMBED_WORDS[name])
            continue
        embed[name] = given = entry.option(options[name])
        try:
            if name in schema.EMBED_LIMITS:
                check_whole(name, given, *schema.EMBED_LIMITS[name])
            elif name == "max_failed":
                check_number(name, entry.number(), 0, 1, "0.01 is usual")
        except Refused as error:
            raise entry.refused(error.rule, error.remedy) from error
    return embed


def _refuse_too_many(study: Study, value: Value) -> None:
    """Refuse more cells than could ever be made, before they fill the memory."""
    if count_cells(study, MAX_CELLS) > MAX_CELLS:
        raise value.refused(
            f"A study has at most {MAX_CELLS:,} cells",
            "name fewer data sets, models or seeds, or make several studies",
        )


def _refuse_own_files(study: Study, value: Value) -> None:
    """Refuse a data set that is read from what the study makes of it: it would wait for itself."""
    home = study.root / study.name
    entries = _named(value)
    for data in study.datasets:
        for key, path in (("bank", data.bank), ("manifest", data.manifest), ("folder", data.folder)):
            if path is not None and any(path.is_relative_to(home / made) for made in MADE):
                raise (
                    entries[data.name]
                    .members()[key]
                    .refused(
                        f"{home} is where the study itself writes, so {data.name} would be made from itself",
                        "name what was there before the study, or give the study another name",
                    )
                )


def _refuse_bad_overrides(study: Study, value: Value) -> None:
    """Refuse options of a data set that an evaluation refuses together with its own in all of its modes."""
    entries = _named(value)
    for data, evaluation in product(study.datasets, study.evaluations):
        own = data.options.get(evaluation.kind)
        if own and data.name in evaluation.datasets:
            place = entries[data.name].members()["options"].members()[evaluation.kind]
            check_options(replace(evaluation, options=options_for(evaluation, data)), place)
