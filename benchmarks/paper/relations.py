"""Two numbers of models against each other: the panels of figures 7 and A1-A4."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from benchmarks.paper.experiments import (
    Experiment,
    accuracies,
    half_widths,
    metric_of,
    models_of,
    numbers,
)
from benchmarks.paper.names import DIFFUSION, IMAGENET_MODELS, INVARIANCES, LPIPS, TOP1
from benchmarks.paper.values import Values
from engine.kernels.summaries import mean_sd
from engine.report.statistics import Correlation, LineFit, Numbers, adjusted, correlate, fit_line

#: Top-1 accuracy in percent of the supervised models' weights, by torchvision; the authors list others.
WEIGHTS_TOP1 = {"supervised-r50": 76.130, "supervised-r18": 69.758, "supervised-d121": 74.434}
#: What the authors' fit of one panel leaves out, without saying so in the paper.
OMITTED = {"multiview:chexpert": {"mimic-chexpert-lr0.01": "dropped by the authors' plotting script"}}


@dataclass(frozen=True)
class Relation:
    """A panel: one number against another, a marker each model, with a correlation and a line.

    Attributes:
        key: e.g. `few_shot:chexpert`, `multiview:linear:chexpert`.
        title: e.g. `CheXpert, few-shot`.
        axes: labels of x and y.
        x, y: numbers by model.
        x_error, y_error: half widths of bars by model; models without one have none.
        correlation: over all models that have both numbers.
        line: unweighted, over the same models.
        published: the correlation as the authors computed it, where they left models out; None elsewhere.
        weighted: a line weighted by the errors of y, over the ImageNet models; None elsewhere.
    """

    key: str
    title: str
    axes: tuple[str, str]
    x: Numbers
    y: Numbers
    correlation: Correlation
    line: LineFit
    x_error: Numbers = field(default_factory=dict)
    y_error: Numbers = field(default_factory=dict)
    published: Correlation | None = None
    weighted: LineFit | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """Return the models that have both numbers."""
        return self.correlation.models


def relate(
    key: str,
    title: str,
    axes: tuple[str, str],
    x: Numbers,
    y: Numbers,
    models: Sequence[str],
    *,
    what: tuple[str, str],
    x_error: Numbers | None = None,
    y_error: Numbers | None = None,
) -> Relation:
    """Correlate two numbers over models and fit a line.

    Args:
        what: names of x and y in reasons.
        models: all that are meant to enter.
        key, title, axes, x, y, x_error, y_error: as for `Relation`.
    """
    omitted = {model: why for model, why in OMITTED.get(key, {}).items() if model in x and model in y}
    return Relation(
        key,
        title,
        axes,
        x,
        y,
        correlate(x, y, models, names=what),
        fit_line(x, y, models, names=(*what, "error")),
        x_error or {},
        y_error or {},
        correlate(x, y, models, names=what, without=omitted) if omitted else None,
    )


def with_adjusted_p(relations: Sequence[Relation]) -> tuple[Relation, ...]:
    """Return relations whose p values are adjusted for all of them."""
    tests = adjusted([one.correlation for one in relations])
    return tuple(
        replace(one, correlation=correlation) for one, correlation in zip(relations, tests, strict=True)
    )


def invariance(values: Values, transform: str, experiment: Experiment) -> Relation:
    """Relate an accuracy (x) to the cosine of an invariance (y) on the same data set.

    Args:
        transform: a key of `names.INVARIANCES`.
    """
    dataset, few = experiment.dataset, experiment.protocol == "few_shot"
    metric = INVARIANCES[transform]
    label = {"hflip": "h-flip", "multiview": "multi-view"}.get(transform, transform)
    return relate(
        f"{transform}:{dataset}" if few else f"{transform}:{experiment.name}",
        f"{experiment.label}: {label}",
        ("accuracy, %", f"{label} cosine"),
        accuracies(values, experiment),
        numbers(values, dataset, metric),
        models_of(values),
        what=("accuracy", "cosine"),
        x_error=half_widths(values, dataset, metric_of(values, experiment)),
        y_error=half_widths(values, dataset, metric),
    )


def diffusion(values: Values, experiment: Experiment) -> Relation:
    """Relate an accuracy (x) to the attentive diffusion (y) on the same data set."""
    return relate(
        experiment.name,
        experiment.label,
        ("accuracy, %", "attentive diffusion"),
        accuracies(values, experiment),
        numbers(values, experiment.dataset, DIFFUSION),
        models_of(values),
        what=("accuracy", "attentive diffusion"),
        x_error=half_widths(values, experiment.dataset, metric_of(values, experiment)),
        y_error=half_widths(values, experiment.dataset, DIFFUSION),
    )


def lpips_means(values: Values, dataset: str) -> tuple[dict[str, float], dict[str, float]]:
    """Return the mean of the three LPIPS distances and their standard deviation (divisor 3), by model."""
    by_net = [numbers(values, dataset, metric) for metric in LPIPS]
    models = [model for model in by_net[0] if all(model in net for net in by_net)]
    summaries = {model: mean_sd([net[model] for net in by_net], ddof=0) for model in models}
    return {m: s.mean for m, s in summaries.items()}, {m: s.sd for m, s in summaries.items()}


def lpips(values: Values, experiment: Experiment) -> Relation:
    """Relate an accuracy (x) to the mean of three LPIPS distances (y) on the same data set.

    The weighted line of the paper's section 5.3 is over the ImageNet models: x is the accuracy as a fraction,
    errors are the standard deviation of the three distances.
    """
    accuracy = accuracies(values, experiment)
    means, spread = lpips_means(values, experiment.dataset)
    relation = relate(
        experiment.name,
        experiment.label,
        ("accuracy, %", "mean LPIPS"),
        accuracy,
        means,
        models_of(values),
        what=("accuracy", "LPIPS"),
        x_error=half_widths(values, experiment.dataset, metric_of(values, experiment)),
        y_error=spread,
    )
    fractions = {model: value / 100 for model, value in accuracy.items()}
    fit = fit_line(
        fractions, means, models_of(values, IMAGENET_MODELS), spread, names=("accuracy", "LPIPS", "spread")
    )
    return replace(relation, weighted=fit)


def lpips_correlation(values: Values, experiment: Experiment) -> Correlation:
    """Correlate as `lpips` does, over the ImageNet models alone."""
    means, _ = lpips_means(values, experiment.dataset)
    models = models_of(values, IMAGENET_MODELS)
    return correlate(accuracies(values, experiment), means, models, names=("accuracy", "LPIPS"))


def imagenet(values: Values, experiment: Experiment, top1: Mapping[str, float] | None = None) -> Relation:
    """Relate the accuracy on ImageNet (x) to one on a data set (y).

    Args:
        top1: model -> top-1 accuracy in percent; None takes those of values.
    """
    return relate(
        experiment.name,
        experiment.label,
        ("ImageNet top-1, %", "accuracy, %"),
        numbers(values, "imagenet", TOP1) if top1 is None else top1,
        accuracies(values, experiment),
        models_of(values),
        what=("ImageNet top-1", "accuracy"),
        y_error=half_widths(values, experiment.dataset, metric_of(values, experiment)),
    )


def shown(relations: Sequence[Relation]) -> tuple[Relation, ...]:
    """Return the relations in which at least three models have both numbers, p adjusted over them."""
    return with_adjusted_p([one for one in relations if one.correlation.n >= 3])


def is_defined(number: float) -> bool:
    """Return whether a number is there."""
    return not math.isnan(number)
