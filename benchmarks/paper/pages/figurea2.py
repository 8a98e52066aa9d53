"""Figure A2: transfer accuracy against attentive diffusion."""

from pathlib import Path

from benchmarks.paper.experiments import missing, provenance, transfers
from benchmarks.paper.relations import Relation, diffusion, shown
from benchmarks.paper.scatter import about, draw_panels, points_table, statistics_table
from benchmarks.paper.style import save
from benchmarks.paper.values import Values
from engine.report.page.blocks import DataTable

TITLE = "transfer accuracy against attentive diffusion, by data set"


def relations(values: Values) -> tuple[Relation, ...]:
    """Return the panels.

    Raises:
        Refused: none has three models with both numbers.
    """
    panels = shown([diffusion(values, experiment) for experiment in transfers(values)])
    if not panels:
        raise missing("figure A2", "an accuracy and attentive diffusion of three models on one data set")
    return panels


def caption(values: Values) -> str:
    """Return what is shown, n, and where the values are from."""
    return (
        "Figure A2. Accuracy (x) and attentive diffusion (y) of models on a data set. "
        f"{about(relations(values))} {provenance(values)}"
    )


def draw(values: Values, out: Path) -> None:
    """Draw the figure. Raises Refused if values are lacking."""
    save(lambda: draw_panels(relations(values), caption(values)), out, "figurea2")


def table(values: Values) -> DataTable:
    """Return the correlations. Raises Refused if values are lacking."""
    return statistics_table("figurea2", caption(values), relations(values))


def points(values: Values) -> DataTable:
    """Return the points. Raises Refused if values are lacking."""
    return points_table("figurea2-points", caption(values), relations(values))
