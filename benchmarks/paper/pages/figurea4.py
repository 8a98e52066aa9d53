"""Figure A4: top-1 accuracy on ImageNet against transfer accuracy."""

from pathlib import Path

from benchmarks.paper.experiments import missing, numbers, provenance, transfers
from benchmarks.paper.names import TOP1
from benchmarks.paper.relations import Relation, imagenet, shown
from benchmarks.paper.scatter import about, draw_panels, points_table, statistics_table
from benchmarks.paper.style import save
from benchmarks.paper.values import Values, published_results
from engine.report.page.blocks import DataTable

TITLE = "accuracy on ImageNet against transfer accuracy, by data set"


def relations(values: Values) -> tuple[Relation, ...]:
    """Return the panels; values without accuracies on ImageNet are drawn against the authors' list.

    Raises:
        Refused: none has three models with both numbers.
    """
    top1 = numbers(values, "imagenet", TOP1) or numbers(published_results(), "imagenet", TOP1)
    panels = shown([imagenet(values, experiment, top1) for experiment in transfers(values)])
    if not panels:
        raise missing("figure A4", "an accuracy of three of the paper's ImageNet models on one data set")
    return panels


def caption(values: Values) -> str:
    """Return what is shown, n, and where the values are from."""
    return (
        "Figure A4. Top-1 accuracy on ImageNet (x) and transfer accuracy (y). The former are from the authors' "
        "list, which for supervised networks has numbers of other weights than those used. "
        f"{about(relations(values))} {provenance(values)}"
    )


def draw(values: Values, out: Path) -> None:
    """Draw the figure. Raises Refused if values are lacking."""
    save(lambda: draw_panels(relations(values), caption(values)), out, "figurea4")


def table(values: Values) -> DataTable:
    """Return the correlations. Raises Refused if values are lacking."""
    return statistics_table("figurea4", caption(values), relations(values))


def points(values: Values) -> DataTable:
    """Return the points. Raises Refused if values are lacking."""
    return points_table("figurea4-points", caption(values), relations(values))
