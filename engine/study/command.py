"""The shell command that makes a cell of a study again."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from engine.study.cells import COMPARE
from engine.study.kinds import KINDS_BY_NAME, Kind, Option
from engine.study.study import Cell, Model, Study
from stores.json_types import Json


def command_of(study: Study, cell: Cell, bank: Path | str, records: Sequence[str] = ()) -> str:
    """Return the `embank` command that makes a cell's record again, quoted for a shell.

    Options at their defaults are left out. A finetuned model whose preprocessing has no name
    (`embed: side`) is trained with the preprocessing of its weights by this command.

    Args:
        study: whose cell it is.
        cell: an evaluation or a comparison.
        bank: its bank (`engine.study.image_sets.bank_of`).
        records: of a comparison, ids of the records that it is between; none takes the latest of each model.
    """
    if cell.kind == COMPARE:
        return shlex.join(["embank", "compare", *_compared(cell, str(bank), records)])
    kind = KINDS_BY_NAME[cell.kind]
    if kind.name == "finetune":
        model = next(model for model in study.models if model.name == cell.model)
        words = [f"{bank}/manifest.parquet", *_trained(model), *_flag("--bank", str(bank))]
    else:
        words = [str(bank), *_flag("--model", cell.model)]
    first = 2 if kind.words[0] == "bank" else 1  # the words of the command; others are options
    command = ["embank", *kind.words[:first], *words, *kind.words[first:]]
    return shlex.join([*command, *_options(kind, cell)])


def _options(kind: Kind, cell: Cell) -> list[str]:
    words: list[str] = []
    if kind.labels and (columns := _texts(cell.options.get("label"))) != ["label"]:
        words += [word for column in columns for word in _flag("--label", column)]
    for option in kind.options:
        if option.name in cell.options:
            words += _option(option, cell.options[option.name])
    words += [word for column in _texts(cell.options.get("strata")) for word in _flag("--strata", column)]
    if kind.modes and cell.mode != "default":
        words += ["--mode", cell.mode]
    if kind.seeds and cell.seed:
        words += ["--seed", str(cell.seed)]
    if cell.options.get("controls"):
        words.append("--controls")
    return words


def _option(option: Option, value: Json) -> list[str]:
    """Return the words of one option."""
    if option.type == "switch":
        return [option.written] if value else [option.off] * bool(option.off)
    texts = _texts(value)
    if option.comma:
        texts = [",".join(texts)]
    return [word for text in texts for word in _flag(option.written, text)]


def _compared(cell: Cell, bank: str, records: Sequence[str]) -> list[str]:
    options = cell.options
    words = [f"{bank}/records/{record}" for record in records] or [bank]
    words += _flag("--evaluation", str(options["evaluation"]))
    if options.get("metric") is not None:
        metric = str(options["metric"]).removesuffix("_accuracy")  # the command line's `mean-per-class`
        words += _flag("--metric", metric.replace("_", "-"))
    words += [word for model in _texts(options["models"]) for word in _flag("--model", model)]
    columns = _texts(options.get("label"))
    if len(columns) == 1 and columns != ["label"]:
        words += _flag("--label", columns[0])
    return words + (["--seed", str(cell.seed)] if cell.seed else [])


def _trained(model: Model) -> list[str]:
    words = _flag("--model", model.slug)
    if model.weights:
        words += _flag("--weights", str(model.weights))
    return words + (_flag("--recipe", model.recipe) if model.recipe else [])


def _flag(flag: str, text: str) -> list[str]:
    """Return a flag with its value, in one word where the value would be taken for a flag."""
    return [f"{flag}={text}"] if text.startswith("-") else [flag, text]


def _texts(value: Json) -> list[str]:
    if value is None:
        return []
    values = value if isinstance(value, list) else [value]
    return [f"{one:.15g}" if isinstance(one, float) else str(one) for one in values]
