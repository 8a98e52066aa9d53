"""Figure A2: transfer accuracy against attentive diffusion."""

from benchmarks.paper.experiments import transfers
from benchmarks.paper.relation_page import RelationFigure
from benchmarks.paper.relations import diffusion

TITLE = "transfer accuracy against attentive diffusion, by data set"
FIGURE = RelationFigure(
    "figurea2",
    "Accuracy (x) and attentive diffusion (y) of models on a data set.",
    lambda values: [diffusion(values, experiment) for experiment in transfers(values)],
    "an accuracy and attentive diffusion",
)
draw, table, points = FIGURE.draw, FIGURE.table, FIGURE.points
