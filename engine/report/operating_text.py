"""What `embank probe` prints of calibration, operating points and strata."""

from collections.abc import Mapping, Sequence
from typing import Any

from engine.report import console, tables
from engine.report.console import write as print
from engine.report.json_parts import members, objects
from engine.report.record_values import at, number, text
from stores.json_types import Json

#: Names in a line of reasons.
_NAMED = 4
#: A fit with its model: metrics of a record, or one of their findings.
Fit = Mapping[str, Json]


def print_operating(fits: Sequence[Fit]) -> None:
    """Print tables of calibration, operating points and strata, each where there is anything to show."""
    scaled = [fit for fit in fits if at(fit, "calibration.ece") is not None]
    if scaled:
        title = "Calibration on test, before → after temperature T from validation"
        columns = ["model", "label", "T", "ECE", "Brier", "log loss"]
        console.print_table(columns, [_calibration(fit) for fit in scaled], title=title)
    _print_reasons(scaled, "calibration.reason", "no temperature: ")
    binary = [fit for fit in fits if "operating" in fit]
    if binary:
        _print_points(binary)
    for fit in fits:
        for strata in objects(fit.get("strata") or []):
            _print_strata(fit, strata)


def _calibration(fit: Fit) -> list[Any]:
    body = members(fit["calibration"])
    changes = [
        f"{_short(at(body, f'{name}.before'))} > {_short(at(body, f'{name}.after'))}"
        for name in ("ece", "brier", "log_loss")
    ]
    return [fit["model"], fit["label"], _short(body["temperature"]), *changes]


def _short(value: Json) -> str:
    found = number(value)
    return "-" if found != found else f"{found:.3f}"


def _print_points(fits: Sequence[Fit]) -> None:
    rows = []
    for fit in fits:
        points = members(fit["operating"])
        kept = members(points["sensitivity_at_specificity"])
        applied = [members(at(points, f"at_threshold.{name}")) for name in _PROPORTIONS]
        cells = [_interval(kept, "sensitivity"), _short(at(points, "threshold.value"))]
        rows.append([fit["model"], fit["label"], *cells, *(_interval(own, "value") for own in applied)])
    first = members(fits[0]["operating"])
    specificity = number(at(first, "sensitivity_at_specificity.specificity"))
    rule = {"youden": "by Youden's index", "specificity": f"for specificity {specificity:g}"}
    title = f"Test at the threshold chosen on validation {rule[text(at(first, 'threshold.rule'))]}"
    columns = ["model", "label", f"sens. at {specificity:g}", "threshold", *_PROPORTIONS.values()]
    console.print_table(columns, rows, title=title)
    for name in ("sensitivity_at_specificity", "threshold"):
        _print_reasons(fits, f"operating.{name}.reason", f"{name.replace('_', ' ')}: ")


def _print_reasons(fits: Sequence[Fit], path: str, what: str) -> None:
    """Print each reason why a number of fits is undefined, once, after the fits that have it."""
    by_reason: dict[str, list[str]] = {}
    for fit in fits:
        if reason := text(at(fit, path)):
            by_reason.setdefault(reason, []).append(f"{fit['model']} {fit['label']}")
    for reason, names in by_reason.items():
        _wrapped(f"  {_listed(names)}: {what}{reason}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED:,} others" * (len(names) > _NAMED))


_PROPORTIONS = {"sensitivity": "sensitivity", "specificity": "specificity", "ppv": "PPV", "npv": "NPV"}


def _interval(body: Mapping[str, Json], name: str) -> str:
    low, high = number(body.get("low")), number(body.get("high"))
    bounds = "" if low != low else f" ({low:.2f}-{high:.2f})"
    return f"{_short(body[name])}{bounds}"


def _print_strata(fit: Fit, strata: Mapping[str, Json]) -> None:
    rows = []
    for stratum in objects(strata["strata"]):
        cells = [stratum["stratum"], stratum["images"], stratum["patients"]]
        for name in ("accuracy", "auroc"):
            bounds = members(at(stratum, f"intervals.{name}") or {})
            cells.append(_interval({**bounds, "value": stratum.get(name)}, "value"))
        rows.append(cells)
    title = f"{fit['model']}, {fit['label']} by {strata['column']}"
    console.print_table(["stratum", "images", "patients", "accuracy", "AUROC"], rows, title=title)
    for name, what in (("reason", ""), ("auroc_reason", "AUROC: ")):
        by_reason: dict[str, list[str]] = {}
        for stratum in objects(strata["strata"]):
            if reason := text(stratum.get(name)):
                by_reason.setdefault(reason, []).append(str(stratum["stratum"]))
        for reason, names in by_reason.items():
            _wrapped(f"  {_listed(names)}: {what}{reason}")
    if number(strata["missing"]):
        _wrapped(f"  {strata['missing']:,} test images have no {strata['column']}")
    for name, heading in (("accuracy", "accuracy"), ("auroc", "AUROC")):
        _wrapped(f"  {_gap(members(at(strata, f'gaps.{name}')), heading)}")


def _gap(gap: Mapping[str, Json], heading: str) -> str:
    reason = text(gap.get("reason"))
    if "highest" not in gap:
        return f"No gap of {heading}: {reason}"
    value, low, high = (number(gap[name]) for name in ("value", "low", "high"))
    if value == 0:
        return f"No gap of {heading}: {gap['strata']} strata have the same value"
    bounds = f" ({low:.3f} to {high:.3f})" if low == low else f"; no interval: {reason}"
    between = f"{gap['highest']} above {gap['lowest']}"
    real = "" if low != low or low > 0 else ", which may be chance"
    return f"Largest gap of {heading}: {value:.3f}{bounds}, {between}{real}"


def _wrapped(line: str) -> None:
    for part in tables.wrapped(line, console.width()):
        print(part)
