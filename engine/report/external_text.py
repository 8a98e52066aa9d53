"""Tables of external validation: probes of one bank tested on others."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from engine.report import console

#: Metric -> its name in a table.
_METRICS = {"accuracy": "accuracy", "mean_per_class_accuracy": "balanced accuracy", "auroc": "AUROC"}


def print_external(results: Sequence[Mapping[str, Any]]) -> None:
    """Print the tests on other banks, a line each, and why some have none; nothing where there are none.

    Args:
        results: with `model`, `label` and `external`.
    """
    tests = [(result, test) for result in results for test in result.get("external", ())]
    if not tests:
        return
    rows = [[result["model"], test["label"], test["bank"], *_numbers(test)] for result, test in tests]
    columns = ["model", "label", "tested on", "images", "accuracy", "95 %", "balanced", "AUROC"]
    console.print_table(columns, rows, title="External validation")
    for result, test in tests:
        _print_reasons(f"{result['model']} on {test['bank']}", test)


def _numbers(test: Mapping[str, Any]) -> list[Any]:
    measured = test["test"]
    if measured is None:
        return [test["n"], *["-"] * 4]
    shown = [test["n"], measured["accuracy"], _interval(measured, "accuracy") or "undefined"]
    if not measured.get("intervals"):
        shown[2] = ""
    return [*shown, measured["mean_per_class_accuracy"], measured["auroc"]]


def _print_reasons(start: str, test: Mapping[str, Any]) -> None:
    measured = test["test"]
    if measured is None:
        console.write(f"  {start}: {test['reason']}")
    elif reason := measured.get("auroc_reason"):
        console.write(f"  {start}: AUROC: {reason}")


def print_matrix(results: Sequence[Mapping[str, Any]]) -> None:
    """Print a table of sources (rows) and targets (columns) for each model, label and metric.

    Args:
        results: of every bank, with `bank`, `model`, `label`, `test` and `external`.
    """
    banks = list(dict.fromkeys(str(result["bank"]) for result in results))
    names = short_names(banks)
    cells: dict[tuple[str, str], dict[tuple[str, str], Mapping[str, Any] | None]] = {}
    for result in results:
        source = str(result["bank"])
        for own in result.get("findings", (result,)):
            if "test" in own:
                cells.setdefault((result["model"], own["label"]), {})[source, source] = own["test"]
        for test in result["external"]:
            cells.setdefault((result["model"], test["label"]), {})[source, test["bank"]] = test["test"]
    for (model, label), by_pair in cells.items():
        for metric, word in _METRICS.items():
            rows = [
                [names[source], *(_cell(by_pair.get((source, target)), metric) for target in banks)]
                for source in banks
            ]
            columns = ["fitted on", *(f"on {names[target]}" for target in banks)]
            console.print_table(columns, rows, title=f"{model}, {label}: {word}")
    for result in results:
        for test in result["external"]:
            _print_reasons(f"{result['model']}, {names[str(result['bank'])]} on {names[test['bank']]}", test)


def with_banks(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return results of a matrix with the bank in the model's name, for the other tables and the issues."""
    names = short_names(list(dict.fromkeys(str(result["bank"]) for result in results)))
    return [{**one, "model": f"{one['model']} of {names[str(one['bank'])]}"} for one in results]


def _cell(measured: Mapping[str, Any] | None, metric: str) -> str:
    if measured is None:
        return "-"
    value, interval = measured[metric], _interval(measured, metric)
    shown = f"{value:.3f}" if value == value else "undefined"
    return f"{shown} ({interval})" if interval else shown


def _interval(measured: Mapping[str, Any], metric: str) -> str:
    interval = measured.get("intervals", {}).get(metric)
    if not interval or "reason" in interval:
        return ""
    return f"{interval['low']:.3f}-{interval['high']:.3f}"


def short_names(banks: Sequence[str]) -> dict[str, str]:
    """Return the last part of each path, or as many parts as tell all of them apart."""
    parts = {bank: PurePosixPath(bank).parts for bank in banks}
    for count in range(1, max(map(len, parts.values())) + 1):
        names = {bank: str(PurePosixPath(*own[-count:])) for bank, own in parts.items()}
        if len(set(names.values())) == len(banks):
            return names
    return {bank: bank for bank in banks}
