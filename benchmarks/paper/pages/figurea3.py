"""Figure A3: transfer accuracy against the mean LPIPS of reconstructions, with the fits of section 5.3."""

from benchmarks.paper.experiments import transfers
from benchmarks.paper.relation_page import RelationFigure
from benchmarks.paper.relations import lpips

TITLE = "transfer accuracy against LPIPS of reconstructed images, by data set"
FIGURE = RelationFigure(
    "figurea3",
    "Accuracy (x) and LPIPS between image and reconstruction (y): mean of AlexNet, SqueezeNet and VGG-16, "
    "vertical bars: their standard deviation (divisor 3). χ²/ν: reduced chi-square with ν = n−2 of a line "
    "weighted by these deviations through the ImageNet models, as in section 5.3 of the paper.",
    lambda values: [lpips(values, experiment) for experiment in transfers(values)],
    "an accuracy and three LPIPS",
)
draw, table, points = FIGURE.draw, FIGURE.table, FIGURE.points
