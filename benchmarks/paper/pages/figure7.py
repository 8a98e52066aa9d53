"""Figure 7: few-shot accuracy on CheXpert against the attentive diffusion of its sample image."""

from pathlib import Path

from benchmarks.paper.experiments import Experiment, missing, provenance
from benchmarks.paper.names import model_label
from benchmarks.paper.relations import Relation, diffusion
from benchmarks.paper.scatter import draw_one, points_table, signed, statistics_table
from benchmarks.paper.style import save
from benchmarks.paper.values import Values
from engine.report.page.blocks import DataTable
from engine.report.statistics import n_of

TITLE = "few-shot accuracy on CheXpert against attentive diffusion"
_CHEXPERT = Experiment("few_shot", "chexpert")


def relation(values: Values) -> Relation:
    """Return the panel.

    Raises:
        Refused: fewer than three models have both numbers.
    """
    panel = diffusion(values, _CHEXPERT)
    if panel.correlation.n < 3:
        raise missing(
            "figure 7", "few-shot accuracy and attentive diffusion of three models on data set `chexpert`"
        )
    return panel


def caption(values: Values) -> str:
    """Return what is shown, n, and where the values are from."""
    result = relation(values).correlation
    other, (low, high) = result.most_influential, result.r_range
    influence = (
        f"Without one model r is {signed(low)} to {signed(high)}; it changes most without "
        f"{model_label(other.model)}. "
        if other
        else ""
    )
    return (
        f"Figure 7. Few-shot accuracy on CheXpert (x) and attentive diffusion of its sample images (y). "
        f"{n_of(result.n, result.left_out)}. Line: least squares with its pointwise 95 % band; "
        f"bars: 95 % intervals where given; p: Student's t, not adjusted. {influence}{provenance(values)}"
    )


def draw(values: Values, out: Path) -> None:
    """Draw the figure. Raises Refused if values are lacking."""
    save(lambda: draw_one(relation(values), caption(values)), out, "figure7")


def table(values: Values) -> DataTable:
    """Return the correlation. Raises Refused if values are lacking."""
    return statistics_table("figure7", caption(values), [relation(values)])


def points(values: Values) -> DataTable:
    """Return the points. Raises Refused if values are lacking."""
    return points_table("figure7-points", caption(values), [relation(values)])
