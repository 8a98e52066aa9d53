"""Correlations in words: in panels, captions and tables."""

import math
from collections.abc import Sequence

from benchmarks.paper.names import model_label
from benchmarks.paper.relations import Relation
from engine.report.statistics import Correlation, LeftOut, n_of


def about(relations: Sequence[Relation]) -> str:
    """Return sentences about n, lines, bars and p of several panels, for a caption."""
    counts = [relation.correlation.n for relation in relations]
    smallest, largest = min(counts), max(counts)
    n = (
        f"n = {smallest} models"
        if smallest == largest
        else f"n = {smallest} to {largest} models, see the panels"
    )
    if any(relation.correlation.left_out for relation in relations):
        n += "; the others lack one of the numbers"
    p = min((one.correlation.p_adjusted for one in relations), default=math.nan)
    omitted = [
        f" Dashed ({relation.title}): as the authors fitted it, without "
        f"{', '.join(model_label(model) for model in dropped(relation))}; the paper does not say so."
        for relation in relations
        if relation.published is not None
    ]
    return (
        f"{n}. Lines: least squares, with pointwise 95 % bands. Bars: 95 % intervals, where given. "
        f"p: Student's t, not adjusted; the smallest after Holm's adjustment for {len(relations)} panels is "
        f"{p_text(p)}.{''.join(omitted)}"
    )


def alone(relation: Relation) -> str:
    """Return sentences about n, line, bars, p and influence of a single panel, for a caption."""
    result = relation.correlation
    labelled = [LeftOut(model_label(one.name), one.reason) for one in result.left_out]
    low, high = result.r_range
    other = result.most_influential
    influence = (
        f" Without one model r is {signed(low)} to {signed(high)}; it changes most without "
        f"{model_label(other.model)}."
        if other
        else ""
    )
    return (
        f"{n_of(result.n, labelled)}. Line: least squares, with its pointwise 95 % band. Bars: 95 % "
        f"intervals, where given. p: Student's t.{influence}"
    )


def correlation_words(result: Correlation) -> str:
    """Return e.g. `r = −0.72, p = 0.0055, n = 13`."""
    if math.isnan(result.r):
        return f"r undefined ({result.reason}), n = {result.n}"
    return f"r = {signed(result.r)}, p = {p_text(result.p)}, n = {result.n}"


def p_text(p: float) -> str:
    """Return p with two digits that count."""
    if math.isnan(p):
        return ""
    return f"{p:.2f}" if p >= 0.095 else f"{p:.2g}"


def signed(number: float) -> str:
    """Return a number with two decimals and a minus sign that is not a hyphen."""
    return f"{number:.2f}".replace("-", "−")


def dropped(relation: Relation) -> tuple[str, ...]:
    """Return the models that the authors' fit of a panel leaves out."""
    if relation.published is None:
        return ()
    return tuple(model for model in relation.models if model not in relation.published.models)
