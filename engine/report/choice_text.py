"""What `embank models choose` prints, and its table of models as a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.report import console, tables
from engine.report.compare_text import HEADINGS, tested_on
from engine.report.console import write as print
from engine.report.json_parts import objects
from engine.report.marks import LEGEND, MARK
from engine.report.record_values import number, text
from engine.report.validity_text import print_validity
from stores.json_types import Json, JsonObject
from stores.manifest.uri_policy import plain
from stores.outputs import PICTURES

#: What the set is, where a model is left out of it.
RULE = (
    "A model is left out of the set if a member costs no more in anything, and is either better or cannot be "
    "told from it and costs less. No member replaces another."
)
_COMMERCIAL = {True: "yes", False: "no", None: "unclear"}


def print_choice(document: Mapping[str, Json], out: Path | None) -> None:
    """Print what limits the numbers, the verdict, the models with evidence and costs, and what all rests on.

    Args:
        document: as `--json` prints it.
        out: file that was written.
    """
    models = objects(document["models"])
    print_validity(models)
    for sentence in _texts(document["verdict"]):
        _print_wrapped(sentence)
    _print_models(models, document)
    _print_legend(models, document)
    for note in _texts(document["notes"]):
        _print_wrapped(f"{note}.")
    if out:
        what = "metric against rate" if out.suffix.lower() in PICTURES else "all models"
        print(f"{out}: {what}")


def _print_models(models: Sequence[JsonObject], document: Mapping[str, Json]) -> None:
    """Print the evidence, and then the costs."""
    places = {text(model["model"]): place for place, model in enumerate(models, 1)}
    evidence = [
        [places[text(m["model"])], m["model"], _value(m), _interval(m), m["letters"], _choice(m, places)]
        for m in models
    ]
    heading = HEADINGS[text(document["metric"])]
    console.print_table(["", "model", heading, "95 %", "group", "in the set"], evidence)
    costs = [
        [
            places[text(model["model"])],
            _rate(model),
            model["dim"],
            model["bytes_per_row"],
            _COMMERCIAL[_commercial(model)],
            text(model["licence"]) or "not in the catalogue",
        ]
        for model in models
    ]
    console.print_table(["", "img/s", "dim", "bytes a row", "commercial use", "licence"], costs)


def _print_legend(models: Sequence[JsonObject], document: Mapping[str, Json]) -> None:
    if any(model.get("below_control") for model in models):
        print(f"{LEGEND}.")
    if any(model["replaced_by"] for model in models):
        _print_wrapped(RULE)
    machines = dict.fromkeys(text(m["measured_on"]) for m in models if "img_per_s_reason" not in m)
    if machines:
        machine = ", ".join(machines)
        _print_wrapped(
            f"img/s: of the encoder alone, on {machine}, from this bank's embed records; rates within "
            f"{100 * number(document['margin']):g} % count as equal."
        )
    for reason, names in _grouped(models, "img_per_s_reason").items():
        _print_wrapped(f"No rate of {names}: {reason}.")
    for reason, names in _grouped(models, "reason").items():
        _print_wrapped(f"{names}: {reason}.")
    _print_wrapped(f"{document['evaluation']}, {document['label']}: {tested_on(document)}.")


def _grouped(models: Sequence[JsonObject], field: str) -> dict[str, str]:
    """Return each text of a field with the names of the models that have it."""
    groups: dict[str, list[str]] = {}
    for model in models:
        if field in model:
            groups.setdefault(text(model[field]), []).append(text(model["model"]))
    return {value: ", ".join(names) for value, names in groups.items()}


def _value(model: JsonObject) -> str:
    value = number(model["value"])
    return ("undefined" if value != value else f"{value:.3f}") + (MARK if model.get("below_control") else "")


def _interval(model: JsonObject) -> str:
    low, high = number(model["low"]), number(model["high"])
    return "" if low != low else f"{low:.3f}-{high:.3f}"


def _rate(model: JsonObject) -> str:
    rate = number(model["img_per_s"])
    return "" if rate != rate else f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _commercial(model: JsonObject) -> bool | None:
    permitted = model["commercial_use"]
    return permitted if isinstance(permitted, bool) else None


def _choice(model: JsonObject, places: Mapping[str, int]) -> str:
    if model["in_set"]:
        return "yes"
    by = _texts(model["replaced_by"])
    return f"no: {' or '.join(str(places[name]) for name in by)} instead" if by else "not judged"


def _texts(value: Json) -> list[str]:
    return [str(part) for part in value] if isinstance(value, list) else []


def _print_wrapped(line: str) -> None:
    for part in tables.wrapped(plain(line), console.width()):
        print(part)


#: Columns of the table -> their types, where a column may be empty.
_COLUMNS = {
    "model": "string",
    "record": "string",
    "value": "double",
    "low": "double",
    "high": "double",
    "letters": "string",
    "below_control": "string",
    "img_per_s": "double",
    "img_per_s_reason": "string",
    "measured_on": "string",
    "measured_images": "int64",
    "dim": "int64",
    "bytes_per_row": "int64",
    "licence": "string",
    "commercial_use": "bool",
    "in_set": "bool",
    "replaced_by": "string",
    "reason": "string",
}


def write_models(document: Mapping[str, Json], out: Path) -> None:
    """Write a row for each model, whole or not at all.

    Args:
        document: as `--json` prints it.
        out: ends in .csv, .parquet or .json; missing folders are made.

    Raises:
        Refused: the folder is not writable. MachineFault: the disk is full or fails.
    """
    from stores.table_files import write_table

    columns: dict[str, list[Any]] = {"evaluation": [], "metric": [], "label": []}
    columns |= {name: [] for name in _COLUMNS}
    for model in objects(document["models"]):
        for name in ("evaluation", "metric", "label"):
            columns[name].append(document[name])
        for name in _COLUMNS:
            columns[name].append(_cell(model.get(name)))
    write_table(columns, out, digits=None, types=_COLUMNS)


def _cell(value: Json) -> Any:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or None
    return None if value == "" or (isinstance(value, float) and value != value) else value
