"""Tables of correlations, and of the points behind them."""

import math
from collections.abc import Sequence

from benchmarks.paper.names import dataset_label, model_label
from benchmarks.paper.relation_words import correlation_words, dropped, p_text, signed
from benchmarks.paper.relations import Relation
from engine.report.page.blocks import Column, DataTable, Value
from engine.report.statistics import LeftOut, reasons_of

_WEIGHTED = (
    Column(
        "slope",
        numeric=True,
        hint="of the line weighted by the spread of the three LPIPS; a unit of x is 100 %",
    ),
    Column("intercept", numeric=True),
    Column("χ²/ν", numeric=True, hint="reduced chi-square, n - 2 degrees of freedom, ImageNet models"),
)


def statistics_table(identity: str, caption: str, relations: Sequence[Relation]) -> DataTable:
    """Return a row for each panel: n, r with its interval, p, p after Holm, r without one model, left out."""
    weighted = any(relation.weighted is not None for relation in relations)
    columns = (
        Column("panel"),
        Column("n", numeric=True, hint="models that have both numbers"),
        Column("r", numeric=True, hint="Pearson's correlation; interval by Fisher's z"),
        Column("p", numeric=True, hint="two-sided, Student's t with n - 2 degrees of freedom"),
        Column("p (Holm)", numeric=True, hint="adjusted for all panels of the figure"),
        Column("r without one", hint="smallest and largest r without one model"),
        Column("most influential", hint="the model without which r differs most"),
        Column("r without it", numeric=True),
        Column("p without it", numeric=True),
        *(_WEIGHTED if weighted else ()),
        Column("left out", hint="models without one of the numbers"),
    )
    rows = tuple(_row(relation, weighted) for relation in relations)
    published = [
        f"{relation.title}: {correlation_words(relation.published)} without "
        f"{', '.join(model_label(model) for model in dropped(relation))}, "
        f"which the authors' plotting script drops and the paper does not mention."
        for relation in relations
        if relation.published is not None
    ]
    return DataTable(identity, caption, columns, rows, tuple(published))


def _row(relation: Relation, weighted: bool) -> tuple[Value, ...]:
    result = relation.correlation
    low, high = result.r_range
    other = result.most_influential
    labelled = [LeftOut(model_label(one.name), one.reason) for one in result.left_out]
    return (
        Value(relation.title),
        Value(str(result.n), result.n),
        _number(result.r, "{:.2f}", result.low, result.high, result.reason),
        _number(result.p, "", reason=result.reason),
        _number(result.p_adjusted, "", reason=result.reason),
        Value(f"{signed(low)} to {signed(high)}" if not math.isnan(low) else "–"),
        Value(model_label(other.model) if other else "–"),
        _number(other.r if other else math.nan, "{:.2f}"),
        _number(other.p if other else math.nan, ""),
        *(_weighted_cells(relation) if weighted else ()),
        Value(reasons_of(labelled) or "–"),
    )


def _weighted_cells(relation: Relation) -> tuple[Value, ...]:
    if relation.weighted is None:
        return (Value("–"),) * 3
    line = relation.weighted.line
    return (
        _with_error(line.slope, line.slope_se, line.reason),
        _with_error(line.intercept, line.intercept_se, line.reason),
        _number(line.reduced_chi2, "{:.2f}", reason=line.reason),
    )


def _with_error(value: float, error: float, reason: str) -> Value:
    if math.isnan(value):
        return Value("–", reason=reason)
    return Value(f"{signed(value)} ± {error:.2f}", value, reason=reason)


def _number(
    value: float, form: str, low: float = math.nan, high: float = math.nan, reason: str = ""
) -> Value:
    """Return a cell; without a form the number is a p value."""
    if math.isnan(value):
        return Value("–", reason=reason)
    text = form.format(value).replace("-", "−") if form else p_text(value)
    ends = (None, None) if math.isnan(low) else (low, high)
    return Value(text, value, *ends)


def points_table(identity: str, caption: str, relations: Sequence[Relation]) -> DataTable:
    """Return a row for each point: panel, model, x, y, and the half widths of their bars."""
    columns = (
        Column("panel"),
        Column("data set"),
        Column("model"),
        *(Column(name, numeric=True) for name in ("x", "y", "x ±", "y ±")),
    )
    rows = tuple(
        (
            Value(relation.title),
            Value(dataset_label(relation.key.rpartition(":")[2])),
            Value(model),
            *(
                Value(f"{numbers[model]:g}", numbers[model]) if model in numbers else Value("")
                for numbers in (relation.x, relation.y, relation.x_error, relation.y_error)
            ),
        )
        for relation in relations
        for model in relation.models
    )
    return DataTable(identity, caption, columns, rows)
