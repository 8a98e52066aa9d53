"""Probes on other banks: how much of a score is left on images of another place."""

from collections.abc import Iterator

from engine.report.json_parts import members, objects
from engine.report.page.blocks import Column, DataTable, Paragraph, Section, Value
from engine.report.page.cells import count_cell, score_cell
from engine.report.page.inputs import PageInput, PageOptions
from engine.report.page.results import Result, results_of
from engine.report.record_values import at, number, text
from stores.json_types import JsonObject

#: Metric -> its name; a column for the own test images and one for the others each.
_METRICS = {"auroc": "AUROC", "mean_per_class_accuracy": "balanced accuracy"}
_LEAD = (
    "The same probe, fitted once, on the test images of its own data set and on those of another bank. "
    "A score that falls there does not carry over to other images, patients or labels."
)


def sections(page: PageInput, options: PageOptions) -> tuple[Section, ...]:
    """Return the section, or none without probes that were tested on other banks."""
    rows = [row for one in results_of(page) if one.kind == "probe" for row in _rows(one)]
    if not rows:
        return ()
    columns = (
        *map(Column, ("data set", "evaluation", "mode", "model", "tested on")),
        Column("images", True, "Labelled images of the other bank"),
        *(Column(where, True, group=name) for name in _METRICS.values() for where in ("own", "other")),
    )
    caption = "Scores on the own test images and on another bank, with 95 % intervals."
    table = DataTable("table-external", caption, columns, tuple(rows))
    return (Section("external", "External validation", (Paragraph(_LEAD), table)),)


def _rows(one: Result) -> Iterator[tuple[Value, ...]]:
    """Give a row for each other bank, or of findings for each bank and finding."""
    metrics = one.record.metrics
    findings = objects(metrics.get("findings")) if metrics.get("findings") else []
    for fit in findings or [members(dict(metrics))]:
        external = fit.get("external")
        for other in objects(external) if isinstance(external, list) else []:
            name = f"{one.protocol}: {text(fit.get('label'))}" if findings else one.protocol
            heads = (one.dataset, name, one.mode, one.model)
            scores = (_score(body, metric) for metric in _METRICS for body in (fit, other))
            yield (
                *map(Value, heads),
                _bank(one, text(other.get("bank"))),
                count_cell(number(other.get("n"))),
                *scores,
            )


def _bank(one: Result, name: str) -> Value:
    """Return the name of the other bank, with why its scores are no evidence, e.g. shared patients."""
    issues = objects(list(one.record.validity or []))
    leaks = [i for i in issues if i.get("subject") == name and i.get("severity") == "error"]
    return Value(
        name, reason=". ".join(text(i.get("sentence")) for i in leaks), tone="error" if leaks else None
    )


def _score(body: JsonObject, metric: str) -> Value:
    test = members(body.get("test"))
    low, high = (number(at(test, f"intervals.{metric}.{end}")) for end in ("low", "high"))
    reason = text(test.get(f"{metric}_reason")) or text(test.get("reason"))
    return score_cell(number(test.get(metric)), low, high, reason=reason)
