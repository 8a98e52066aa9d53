"""Figure A4: top-1 accuracy on ImageNet against transfer accuracy."""

from benchmarks.paper.experiments import numbers, transfers
from benchmarks.paper.names import TOP1
from benchmarks.paper.relation_page import RelationFigure
from benchmarks.paper.relations import Relation, imagenet
from benchmarks.paper.values import Values, published_results

TITLE = "accuracy on ImageNet against transfer accuracy, by data set"


def _relations(values: Values) -> list[Relation]:
    """Return the panels; values without accuracies on ImageNet are drawn against the authors' list."""
    top1 = numbers(values, "imagenet", TOP1) or numbers(published_results(), "imagenet", TOP1)
    return [imagenet(values, experiment, top1) for experiment in transfers(values)]


FIGURE = RelationFigure(
    "figurea4",
    "Top-1 accuracy on ImageNet (x) and transfer accuracy (y). The former are from the authors' list, "
    "which for supervised networks has numbers of other weights than those used.",
    _relations,
    "an accuracy",
)
draw, table, points = FIGURE.draw, FIGURE.table, FIGURE.points
