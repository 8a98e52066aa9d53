"""What `embank compare` prints, and its table of pairs as a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.report import console, tables
from engine.report.console import write as print
from engine.report.json_parts import members, objects
from engine.report.marks import LEGEND, MARK
from engine.report.record_values import number
from stores.json_types import Json, JsonObject
from stores.manifest.uri_policy import plain
from stores.outputs import PICTURES

#: Metric -> heading of its column.
HEADINGS = {
    "accuracy": "accuracy",
    "mean_per_class_accuracy": "balanced accuracy",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "log_loss": "log loss",
}
#: Kind of picture -> what it shows.
PLOTS = {"forest": "forest plot", "ranking": "ranking, and the sets that cannot be told apart"}
#: Pairs that are printed.
_PAIRS = 45


def print_comparison(document: Mapping[str, Json], out: Path | None, plot: str = "forest") -> None:
    """Print the verdict, the models with ranks and letters, the pairs, and what the numbers rest on.

    Args:
        out: file that was written; plot: a key of `PLOTS`, if it is a picture.
    """
    for sentence in _texts(document["verdict"]):
        _print_wrapped(sentence)
    heading = HEADINGS[str(document["metric"])]
    _print_models(document, heading)
    if len(objects(document["models"])) > 2:
        _print_pairs(document)
    if "findings" in document:
        _print_findings(objects(document["findings"]), heading)
    _print_basis(document)
    _print_episodes(document)
    for note in _texts(document["notes"]):
        _print_wrapped(f"{note}.")
    if reason := document.get("reason"):
        _print_wrapped(f"{heading}: {reason}.")
    if out:
        print(f"{out}: {PLOTS[plot] if out.suffix.lower() in PICTURES else 'all pairs'}")


def _print_models(document: Mapping[str, Json], heading: str) -> None:
    rows = [
        [
            model["model"],
            _below(model),
            _bounds(model, ".3f"),
            _ranks(members(model["rank"])),
            model["letters"],
        ]
        for model in objects(document["models"])
    ]
    console.print_table(["model", heading, "95 %", "rank", "group"], rows)
    if any(model.get("below_control") for model in objects(document["models"])):
        print(f"{LEGEND}.")


def _below(model: JsonObject) -> Any:
    """Return a model's number, with a mark if its record has a control above it."""
    value = _undefined(model["value"])
    return f"{value}{MARK}" if model.get("below_control") else value


def _print_pairs(document: Mapping[str, Json]) -> None:
    pairs = objects(document["pairs"])
    columns = ["model", "against", "by", "95 %", "Holm p" if number(document["tests"]) > 1 else "p"]
    smaller = document["metric"] == "log_loss"
    rows = [_pair_row(pair, smaller) for pair in pairs[:_PAIRS]]
    if any("episodes" in pair for pair in pairs):
        columns.append("95 % over episodes")
        for row, pair in zip(rows, pairs, strict=False):
            row.append(_bounds(members(pair.get("episodes")), "+.3f"))
    console.print_table(columns, rows)
    if len(pairs) > _PAIRS:
        print(f"{len(pairs) - _PAIRS:,} more pairs: -o FILE.csv or --json has all")


def _print_episodes(document: Mapping[str, Json]) -> None:
    """Print the interval of two models' difference over episodes; of more models it is in the table."""
    (pair, *others) = objects(document["pairs"])
    if not others and "episodes" in pair:
        over = members(pair["episodes"])
        _print_wrapped(
            f"For these very images: {_bounds(over, '+.3f')} over {number(over['count']):,.0f} episodes"
        )


def _pair_row(pair: JsonObject, smaller: bool) -> list[Any]:
    sign = -1.0 if smaller else 1.0
    low, high = sign * number(pair["low"]), sign * number(pair["high"])
    bounds: JsonObject = {"low": min(low, high), "high": max(low, high)}
    difference = sign * number(pair["difference"])
    return [
        pair["a"],
        pair["b"],
        "undefined" if difference != difference else f"{difference:+.3f}",
        _bounds(bounds, "+.3f"),
        _p(pair["p_holm"]),
    ]


def _print_findings(findings: Sequence[JsonObject], heading: str) -> None:
    rows = []
    for finding in findings:
        best, models = _texts(finding["best"]), objects(finding["models"])
        if not best:
            rows.append([finding["name"], "-", f"undefined: {finding.get('reason')}", ""])
            continue
        apart = len(models) - len(best)
        apart_of = f"{apart} of {len(models) - 1} others"
        rows.append([finding["name"], best[0], _undefined(models[0]["value"]), apart_of])
    console.print_table(["finding", "best", heading, "told from"], rows)


def _print_basis(document: Mapping[str, Json]) -> None:
    """Print what the numbers rest on."""
    pairs, tests = objects(document["pairs"]), number(document["tests"])
    names = ", ".join(dict.fromkeys(str(pair["test"]) for pair in pairs))
    adjusted = f"; Holm's adjustment for {tests:,.0f} tests" if tests > 1 else ""
    _print_wrapped(
        f"{document['evaluation']}, {document['task']}: {tested_on(document)}; "
        f"{number(document['resamples']):,.0f} resamples, {document['interval']} intervals; "
        f"p by {names}{adjusted}"
    )
    if left_out := number(document["resamples_left_out"]):
        _print_wrapped(f"{left_out:,.0f} resamples lack a class and are left out.")
    for reason in dict.fromkeys(str(pair["reason"]) for pair in pairs if "reason" in pair):
        _print_wrapped(f"No number for a pair: {reason}.")


def tested_on(document: Mapping[str, Json]) -> str:
    """Return how many images were tested on, and of how many patients."""
    images = f"{number(document['images']):,.0f} images"
    of_patients = f" of {number(document['units']):,.0f} patients"
    return images + (of_patients if document["unit"] == "patients" else "")


def _ranks(rank: Mapping[str, Json]) -> str:
    if not rank:
        return ""
    return f"{rank['low']}" if rank["low"] == rank["high"] else f"{rank['low']}-{rank['high']}"


def _bounds(body: Mapping[str, Json], places: str) -> str:
    low, high = number(body.get("low")), number(body.get("high"))
    if low != low:
        return ""
    return (
        f"{low:{places}} to {high:{places}}" if places.startswith("+") else f"{low:{places}}-{high:{places}}"
    )


def _p(value: Json) -> str:
    p = number(value)
    return "" if p != p else "<0.001" if p < 0.001 else f"{p:.3f}"


def _undefined(value: Json) -> Any:
    return "undefined" if number(value) != number(value) else f"{number(value):.3f}"


def _texts(value: Json) -> list[str]:
    return [str(text) for text in value] if isinstance(value, list) else []


def _print_wrapped(text: str) -> None:
    for line in tables.wrapped(plain(text), console.width()):
        print(line)


def write_pairs(document: Mapping[str, Json], out: Path) -> None:
    """Write a row for each pair, whole or not at all.

    Args:
        document: of a comparison.
        out: ends in .csv, .parquet or .json; missing folders are made.

    Raises:
        Refused: the folder is not writable. MachineFault: the disk is full or fails.
    """
    from stores.table_files import write_table

    parts: list[Mapping[str, Json]] = [{"name": "", **document}]
    parts += objects(document["findings"]) if "findings" in document else []
    names = ("a", "b", "difference", "low", "high", "p", "p_holm", "test", "different", "reason")
    columns: dict[str, list[Any]] = {name: [] for name in ("evaluation", "metric", "finding", *names)}
    for part in parts:
        for pair in objects(part["pairs"]):
            for name in ("evaluation", "metric"):
                columns[name].append(document[name])
            columns["finding"].append(part["name"] or None)
            for name in names:
                value = pair.get(name)
                columns[name].append(None if isinstance(value, float) and value != value else value)
    types = {"finding": "string", "reason": "string", **dict.fromkeys(names[2:7], "double")}
    write_table(columns, out, digits=None, types=types)
