"""Figure A1: transfer accuracy against invariances of the features."""

from benchmarks.paper.experiments import datasets_of, few_shots, transfers
from benchmarks.paper.names import INVARIANCES
from benchmarks.paper.relation_page import RelationFigure
from benchmarks.paper.relations import Relation, invariance
from benchmarks.paper.values import Values

TITLE = "transfer accuracy against invariance to transforms, by data set"


def _relations(values: Values) -> list[Relation]:
    """Return few-shot panels of every transform, and panels of the other protocols for multiple views."""
    few_shot = few_shots(datasets_of(values))
    many_shot = [experiment for experiment in transfers(values) if experiment.protocol != "few_shot"]
    return [
        *(invariance(values, transform, one) for transform in INVARIANCES for one in few_shot),
        *(invariance(values, "multiview", one) for one in many_shot),
    ]


FIGURE = RelationFigure(
    "figurea1",
    "Accuracy (x) and invariance (y): mean cosine of whitened features of an image and its transforms, or "
    "another view. Linear and finetuned panels are not in the paper.",
    _relations,
    "an accuracy and an invariance",
)
draw, table, points = FIGURE.draw, FIGURE.table, FIGURE.points
