"""Controls, as the commands that evaluate them print them."""

from collections.abc import Mapping, Sequence
from typing import Any

from engine.report import console
from engine.report.json_parts import members, objects
from engine.report.marks import LEGEND, marked
from engine.report.record_values import number
from stores.json_types import Json, JsonObject
from stores.manifest.uri_policy import plain

#: Metric -> heading. The JSON document has the others.
_HEADINGS = {"accuracy": "accuracy", "mean_per_class_accuracy": "balanced", "auroc": "AUROC"}


def print_controls(reports: Sequence[Mapping[str, Any]]) -> None:
    """Print a table of the controls of each result, what they were made of, and why others are missing.

    Args:
        reports: with `model`, and `controls` and `below_control` where these were evaluated.
    """
    several = [report for report in reports if report.get("controls")]
    for report in several:
        _print_table(report)
    lines = [line for report in several for line in _remarks(objects(report["controls"]))]
    if any(report["below_control"] for report in several):
        lines.append(f"{LEGEND}.")
    for line in dict.fromkeys(lines):
        _print_wrapped(line)


def _print_table(report: Mapping[str, Any]) -> None:
    controls = [control for control in objects(report["controls"]) if "reason" not in control]
    metrics = [name for name in _HEADINGS if any(name in control for control in controls)]
    test = report.get("test", report)
    rows = [["the model", *(marked(test.get(name), report, name) for name in metrics), ""]]
    rows += [
        [control["title"], *(_cell(control.get(name)) for name in metrics), _difference(control)]
        for control in controls
    ]
    label = f", {report['label']}" if report.get("label") else ""
    heads = ["control", *(_HEADINGS[name] for name in metrics), "model - control, 95 %"]
    console.print_table(heads, rows, title=f"{report['model']}{label}: controls")


def _cell(value: Json) -> Any:
    return "undefined" if number(value) != number(value) else number(value)


def _difference(control: JsonObject) -> str:
    """Return the paired difference of accuracies with its interval."""
    difference = members(control.get("difference"))
    if not difference:
        return ""
    value, low, high = (number(difference.get(name)) for name in ("accuracy", "low", "high"))
    return f"{value:+.3f}" if low != low else f"{value:+.3f} ({low:+.3f} to {high:+.3f})"


def _remarks(controls: Sequence[JsonObject]) -> list[str]:
    lines = []
    for control in controls:
        if "reason" in control:
            lines.append(f"{control['title']}: missing. {control['reason']}. Remedy: {control['remedy']}.")
            continue
        spread = members(members(control.get("range")).get("accuracy"))
        more = f", accuracy {number(spread['low']):.3f}-{number(spread['high']):.3f}" if spread else ""
        if detail := control.get("detail"):
            lines.append(f"{control['title']}: {detail}{more}.")
    return lines


def _print_wrapped(text: str) -> None:
    from engine.report import tables

    for line in tables.wrapped(plain(text), console.width()):
        console.write(line)
