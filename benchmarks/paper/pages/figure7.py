"""Figure 7: few-shot accuracy on CheXpert against attentive diffusion there."""

from benchmarks.paper.experiments import Experiment
from benchmarks.paper.relation_page import RelationFigure
from benchmarks.paper.relations import diffusion

TITLE = "few-shot accuracy on CheXpert against attentive diffusion"
FIGURE = RelationFigure(
    "figure7",
    "Few-shot accuracy on CheXpert (x) and attentive diffusion there (y).",
    lambda values: [diffusion(values, Experiment("few_shot", "chexpert"))],
    "few-shot accuracy and attentive diffusion on data set `chexpert`",
)
draw, table, points = FIGURE.draw, FIGURE.table, FIGURE.points
