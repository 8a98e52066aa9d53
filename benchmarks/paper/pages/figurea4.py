"""Figure A4: top-1 accuracy on ImageNet against transfer accuracy."""

from dataclasses import replace

from benchmarks.paper.experiments import numbers, transfers
from benchmarks.paper.names import TOP1, model_label
from benchmarks.paper.relation_page import RelationFigure
from benchmarks.paper.relation_words import correlation_words
from benchmarks.paper.relations import WEIGHTS_TOP1, Relation, imagenet
from benchmarks.paper.values import Values, published_results
from engine.report.page.blocks import DataTable
from engine.report.statistics import Correlation

TITLE = "accuracy on ImageNet against transfer accuracy, by data set"


def _listed(values: Values) -> dict[str, float]:
    """Return model -> top-1 accuracy on ImageNet; the authors' list where values have none."""
    return numbers(values, "imagenet", TOP1) or numbers(published_results(), "imagenet", TOP1)


def _relations(values: Values) -> list[Relation]:
    return [imagenet(values, experiment, _listed(values)) for experiment in transfers(values)]


FIGURE = RelationFigure(
    "figurea4",
    "Top-1 accuracy on ImageNet (x) and transfer accuracy (y). The former are from the authors' list, "
    "which for supervised networks has numbers of other weights than those used.",
    _relations,
    "an accuracy",
)
draw, points = FIGURE.draw, FIGURE.points


def corrected(values: Values) -> dict[str, Correlation]:
    """Return panel -> correlation with the accuracies of the supervised networks' own weights."""
    top1 = _listed(values)
    top1.update((model, accuracy) for model, accuracy in WEIGHTS_TOP1.items() if model in top1)
    panels = [imagenet(values, experiment, top1) for experiment in transfers(values)]
    return {panel.title: panel.correlation for panel in panels if panel.correlation.n > 2}


def table(values: Values) -> DataTable:
    """Return the correlations, and below them those with other accuracies on ImageNet.

    Raises:
        Refused: values are lacking.
    """
    statistics = FIGURE.table(values)
    others = "; ".join(f"{title}: {correlation_words(one)}" for title, one in corrected(values).items())
    weights = ", ".join(f"{model_label(model)} {accuracy:.3f}" for model, accuracy in WEIGHTS_TOP1.items())
    note = f"With the accuracies of torchvision's weights, which the models have ({weights}): {others}."
    return replace(statistics, notes=(*statistics.notes, note))
