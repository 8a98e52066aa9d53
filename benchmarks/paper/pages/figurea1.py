"""Figure A1: transfer accuracy against invariances of the features."""

from pathlib import Path

from benchmarks.paper.experiments import datasets_of, few_shots, missing, provenance, transfers
from benchmarks.paper.names import INVARIANCES
from benchmarks.paper.relations import Relation, invariance, shown
from benchmarks.paper.scatter import about, draw_panels, points_table, statistics_table
from benchmarks.paper.style import save
from benchmarks.paper.values import Values
from engine.report.page.blocks import DataTable

TITLE = "transfer accuracy against invariance to transforms, by data set"


def relations(values: Values) -> tuple[Relation, ...]:
    """Return the panels: few-shot for every transform, and the other protocols for multiple views.

    Raises:
        Refused: none has three models with both numbers.
    """
    few_shot = few_shots(datasets_of(values))
    many_shot = [experiment for experiment in transfers(values) if experiment.protocol != "few_shot"]
    panels = shown(
        [
            *(invariance(values, transform, one) for transform in INVARIANCES for one in few_shot),
            *(invariance(values, "multiview", one) for one in many_shot),
        ]
    )
    if not panels:
        raise missing("figure A1", "an accuracy and an invariance of three models on one data set")
    return panels


def caption(values: Values) -> str:
    """Return what is shown, n, and where the values are from."""
    return (
        "Figure A1. Accuracy (x) and invariance (y): mean cosine of whitened features of an image and its "
        "transforms, or another view. Linear and finetuned panels are not in the paper. "
        f"{about(relations(values))} {provenance(values)}"
    )


def draw(values: Values, out: Path) -> None:
    """Draw the figure. Raises Refused if values are lacking."""
    save(lambda: draw_panels(relations(values), caption(values)), out, "figurea1")


def table(values: Values) -> DataTable:
    """Return the correlations. Raises Refused if values are lacking."""
    return statistics_table("figurea1", caption(values), relations(values))


def points(values: Values) -> DataTable:
    """Return the points. Raises Refused if values are lacking."""
    return points_table("figurea1-points", caption(values), relations(values))
