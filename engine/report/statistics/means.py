"""Means over named models with standard deviations, and means by domain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.kernels.summaries import mean_sd
from engine.report.statistics.named import LeftOut, Numbers, array, usable


@dataclass(frozen=True)
class GroupMean:
    """A mean over models.

    Attributes:
        mean: NaN without models.
        sd: standard deviation over models with divisor n - ddof; NaN with ddof models or fewer.
        n: number of models.
        models: that entered, in order.
        left_out: models that did not, and why.
        ddof: 1 for a sample, 0 for a population.
        reason: why a number is NaN; "" if both are numbers.
    """

    mean: float
    sd: float
    n: int
    models: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    ddof: int
    reason: str = ""


def group_mean(numbers: Numbers, models: Sequence[str], ddof: int = 1, name: str = "value") -> GroupMean:
    """Return the mean and the standard deviation over models.

    Args:
        models: all that are meant to enter; those without a number are left out, and listed.
        ddof: n - ddof is the divisor of the variance.
        name: of the numbers in reasons.

    Raises:
        ValueError: a model occurs twice.
    """
    entered, left_out = usable(models, {name: numbers})
    result = mean_sd(array(numbers, entered), ddof)
    return GroupMean(result.mean, result.sd, result.n, entered, left_out, ddof, result.reason)


def means_by_domain(
    experiments: Mapping[str, Numbers], domains: Mapping[str, Sequence[str]], models: Sequence[str]
) -> Mapping[str, Mapping[str, GroupMean]]:
    """Return each model's mean over the experiments of each domain: domain -> model -> mean.

    A model without a number in one of the experiments has no mean there: a mean over fewer experiments would
    not be comparable with the others'. `GroupMean.models` and `left_out` are of experiments here.

    Args:
        experiments: name -> numbers by model, on one scale, e.g. scaled ones.
        domains: name -> experiments.

    Raises:
        KeyError: a domain has an experiment that is not among them. ValueError: it has one twice.
    """
    return {
        domain: {
            model: _complete({name: experiments[name] for name in names}, names, model) for model in models
        }
        for domain, names in domains.items()
    }


def _complete(experiments: Mapping[str, Numbers], names: Sequence[str], model: str) -> GroupMean:
    numbers = {name: values[model] for name, values in experiments.items() if model in values}
    entered, left_out = usable(names, {"value": numbers})
    result = mean_sd(array(numbers, entered) if not left_out else [], 1)
    reason = f"no value in {', '.join(one.name for one in left_out)}" if left_out else result.reason
    return GroupMean(result.mean, result.sd, len(entered), entered, left_out, 1, reason)
