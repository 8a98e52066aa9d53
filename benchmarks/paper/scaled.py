"""Accuracies scaled over a set of models, and their means: figures 2 to 5."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.paper.experiments import Experiment, accuracies, few_shots, missing, models_of
from benchmarks.paper.names import DATASETS, IN_DOMAIN, MODELS, OUT_OF_DOMAIN
from benchmarks.paper.values import Values
from engine.report.statistics import Box, GroupMean, Scaled, box, group_mean, means_by_domain, scale

#: Experiments of figures 2 and 5: those on chest X-rays first.
TASKS_IN = (*few_shots(IN_DOMAIN), Experiment("linear", "chexpert"), Experiment("finetune", "chexpert"))
TASKS_OUT = (*few_shots(OUT_OF_DOMAIN), Experiment("linear", "eyepacs"), Experiment("finetune", "eyepacs"))
#: Experiments of figure 4, whose domain models were not finetuned on EyePACS.
DOMAINS: Mapping[str, tuple[Experiment, ...]] = {"in": TASKS_IN, "out": TASKS_OUT[:-1]}
#: Experiments of figure 3, as its caption says; the drawing stored with the code has more.
FEW_SHOT = few_shots(DATASETS)


def scaled(
    values: Values, experiments: Sequence[Experiment], over: Sequence[str]
) -> dict[Experiment, Scaled]:
    """Return accuracies by experiment: 0 is the lowest of a set of models, 1 the highest."""
    return {experiment: scale(accuracies(values, experiment), over, "accuracy") for experiment in experiments}


@dataclass(frozen=True)
class Task:
    """One experiment of figures 2 and 5.

    Attributes:
        experiment: the protocol and the data set.
        scaled: accuracies scaled over all models of the figure.
        means: group -> mean over its models.
    """

    experiment: Experiment
    scaled: Scaled
    means: Mapping[str, GroupMean]


def tasks(
    values: Values, experiments: Sequence[Experiment], groups: Mapping[str, Sequence[str]]
) -> tuple[Task, ...]:
    """Return group means of accuracies, scaled over the models of all groups.

    Experiments without two different accuracies are left out.

    Args:
        groups: name -> models.
    """
    over = [model for models in groups.values() for model in models]
    result = []
    for experiment, one in scaled(values, experiments, over).items():
        if not one.reason:
            means = {name: group_mean(one.values, models, 1, "accuracy") for name, models in groups.items()}
            result.append(Task(experiment, one, means))
    return tuple(result)


def boxes(values: Values, experiments: Sequence[Experiment], models: Sequence[str]) -> dict[str, Box]:
    """Return a box for each model over experiments, scaled over all of the paper's models (figure 3)."""
    by_experiment = scaled(values, experiments, models_of(values, MODELS))
    names = [experiment.name for experiment in experiments]
    return {
        model: box(
            {e.name: one.values[model] for e, one in by_experiment.items() if model in one.values},
            names,
            "accuracy",
        )
        for model in models
    }


@dataclass(frozen=True)
class Domain:
    """One domain of figure 4.

    Attributes:
        experiments: over which each model's mean is.
        models: model -> mean over the experiments; NaN where one is missing.
        groups: group -> mean over its models' means, sd with divisor n - 1.
        population: the same with sd of divisor n.
    """

    experiments: tuple[Experiment, ...]
    models: Mapping[str, GroupMean]
    groups: Mapping[str, GroupMean]
    population: Mapping[str, GroupMean]


def domains(
    values: Values, experiments: Mapping[str, Sequence[Experiment]], groups: Mapping[str, Sequence[str]]
) -> dict[str, Domain]:
    """Return means by domain of accuracies scaled over all of the paper's models (figure 4).

    Args:
        experiments: domain -> experiments; those that no model has are left out.
        groups: name -> models.
    """
    over = models_of(values, MODELS)
    result = {}
    for domain, wanted in experiments.items():
        here = {e: one for e, one in scaled(values, wanted, over).items() if not one.reason}
        by_name = {experiment.name: one.values for experiment, one in here.items()}
        means = means_by_domain(by_name, {domain: tuple(by_name)}, over)[domain]
        numbers = {model: mean.mean for model, mean in means.items()}
        result[domain] = Domain(
            tuple(here),
            means,
            {name: group_mean(numbers, models, 1, "accuracy") for name, models in groups.items()},
            {name: group_mean(numbers, models, 0, "accuracy") for name, models in groups.items()},
        )
    return result


def refuse_without(result: Sequence[object] | Mapping[str, object], figure: str, what: str) -> None:
    """Refuse a figure without anything to show. Raises Refused."""
    if not result:
        raise missing(figure, what)
