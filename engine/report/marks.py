"""The mark of numbers that are below a control."""

from collections.abc import Mapping
from typing import Any

from engine.report.json_parts import objects
from stores.json_types import Json

#: Stands after a number that is worse than the best control's.
MARK = "†"
LEGEND = f"{MARK} below a control: no evidence for the model"


def is_below(report: Mapping[str, Any], metric: str, finding: str = "") -> bool:
    """Return whether a number is below a control.

    Args:
        report: a result, or the metrics of its record.
        metric: e.g. `accuracy`.
        finding: that the number is of; "" for the evaluation's.
    """
    below: Json = report.get("below_control") or []
    return any((one["metric"], one["finding"]) == (metric, finding) for one in objects(below))


def mark(report: Mapping[str, Any], metric: str, finding: str = "") -> str:
    """Return the mark if the number is below a control, else nothing; arguments as for `is_below`."""
    return MARK if is_below(report, metric, finding) else ""


def marked(value: Any, report: Mapping[str, Any], metric: str, finding: str = "") -> Any:
    """Return a number as a table's cell, with the mark if it is below a control; otherwise as `is_below`."""
    if not is_below(report, metric, finding):
        return value
    return f"{f'{value:.4g}' if isinstance(value, float) else value}{MARK}"
